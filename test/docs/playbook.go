// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// playbook writes one section a finding, in the table's order.
func playbook(to io.Writer) error {
	var b strings.Builder
	b.WriteString(`<!-- Made by "make generate" from internal/event/finding.go: do not edit. -->
# Playbook

What each finding of ` + "`synspy diagnose`" + ` means, and what to do. The report names the processes, the present values and the values to
try; this page is what is true of every report. [causes.md](causes.md) says what the causes of single packets mean.

A finding is a ` + "`cause`" + ` of the drops, ` + "`contributing`" + ` to them, or a ` + "`note`" + `. The causes that explain most drops come first. How sure it is:
` + "`proven`" + ` was counted or seen directly, ` + "`likely`" + ` fits the evidence and nothing else that was looked for does, ` + "`possible`" + ` fits as something
else might; then the report says what would settle it.

The order that works for a full accept queue: make accepting fast, then the number of workers, then the backlog of listen() together with
net.core.somaxconn, then the SYN queue, and last the choice between timeout and reset.

| finding | in short | whose |
|---|---|---|
`)
	for _, f := range event.Findings() {
		fmt.Fprintf(&b, "| [%s](#%[1]s) | %s | %s |\n", f.ID, f.Title, f.Owner)
	}
	for _, f := range event.Findings() {
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n\n", f.ID, sentence(f.Means))
		fmt.Fprintf(&b, "- **Told when:** %s.\n", f.Shown)
		if len(f.Causes) > 0 {
			var names []string
			for _, c := range f.Causes {
				names = append(names, fmt.Sprintf("[%v](causes.md#%[1]v)", c))
			}
			fmt.Fprintf(&b, "- **Records' causes:** %s.\n", strings.Join(names, ", "))
		}
		fmt.Fprintf(&b, "- **Whose:** %s.\n\nWhat to do:\n\n", f.Owner)
		for i, do := range f.Do {
			fmt.Fprintf(&b, "%d. %s.\n", i+1, sentence(do))
		}
	}
	_, err := io.WriteString(to, b.String())
	return err
}
