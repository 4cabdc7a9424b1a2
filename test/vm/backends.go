// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"slices"
)

// allBackends lists synspy's backends, best first.
var allBackends = []string{"trampoline", "kprobe", "tracepoint"}

// availableBackends finds the backends that the output of synspy check -o json
// reports available. It is deliberately loose about the shape, in this one place:
// any object anywhere that names a backend and says yes counts, be it
//
//	{"backend":"kprobe","available":true}  or  {"backends":{"kprobe":true}}
func availableBackends(report []byte) []string {
	available := map[string]bool{}
	stream := json.NewDecoder(bytes.NewReader(report))
	for {
		var value any
		if stream.Decode(&value) != nil { // the end, or something that is not JSON
			break
		}
		findBackends(value, available)
	}
	var found []string
	for _, backend := range allBackends {
		if available[backend] {
			found = append(found, backend)
		}
	}
	return found
}

// backendDetail gives what the report says of a backend that is not available.
func backendDetail(report []byte, backend string) string {
	for line := range bytes.Lines(report) {
		var check struct {
			Backend   string `json:"backend"`
			Available *bool  `json:"available"`
			Detail    string `json:"detail"`
		}
		if json.Unmarshal(line, &check) == nil && check.Backend == backend &&
			check.Available != nil && !*check.Available {
			return check.Detail
		}
	}
	return "it does not say why"
}

func findBackends(value any, available map[string]bool) {
	switch value := value.(type) {
	case []any:
		for _, element := range value {
			findBackends(element, available)
		}
	case map[string]any:
		for _, key := range []string{"backend", "name"} {
			if name, ok := value[key].(string); ok &&
				slices.Contains(allBackends, name) && saysYes(value) {
				available[name] = true
			}
		}
		for key, element := range value {
			if slices.Contains(allBackends, key) && saysYes(element) {
				available[key] = true
			}
			findBackends(element, available)
		}
	}
}

// saysYes recognises true, a word for it, or an object with a field that is either.
func saysYes(value any) bool {
	switch value := value.(type) {
	case bool:
		return value
	case string:
		return slices.Contains([]string{"available", "supported", "ok", "yes"}, value)
	case map[string]any:
		for _, key := range []string{"available", "supported", "ok", "status"} {
			if field, there := value[key]; there {
				return saysYes(field)
			}
		}
	}
	return false
}
