// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"slices"
)

// All lists what the lab can make for a diagnosis.
func All() []Incident {
	return slices.Concat(acceptIncidents(), acceptorIncidents(), cpuIncidents(),
		queueIncidents(), pathIncidents(), portIncidents(), answerIncidents(),
		firewallIncidents(), reasonIncidents(),
		deferIncidents())
}

// Find returns the incident of that name.
func Find(name string) (Incident, bool) {
	all := All()
	i := slices.IndexFunc(all, func(i Incident) bool { return i.Name == name })
	if i < 0 {
		return Incident{}, false
	}
	return all[i], true
}
