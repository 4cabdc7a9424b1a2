// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"io"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// CheckStatus is the outcome of a check. Not knowing is an outcome.
type CheckStatus string

// The outcomes.
const (
	CheckOK      CheckStatus = "ok"
	CheckMissing CheckStatus = "missing" // this kernel does not have it
	CheckRefused CheckStatus = "refused" // these privileges do not allow it
	CheckUnknown CheckStatus = "unknown" // could not be tested
)

// CheckRow is one thing that synspy needs or can use.
type CheckRow struct {
	Name   string      `json:"name"`
	Status CheckStatus `json:"status"`
	Detail string      `json:"detail,omitempty"`
	Remedy string      `json:"remedy,omitempty"`
}

// CheckTable writes what this kernel and these privileges allow; in JSON one
// record of type "check" for each row.
func CheckTable(w io.Writer, rows []CheckRow, opts Options) error {
	if opts.Format == FormatJSON {
		for _, r := range rows {
			if err := WriteJSON(w, struct {
				event.Header
				CheckRow
			}{event.Head("check"), r}); err != nil {
				return err
			}
		}
		return nil
	}
	var cells [][]string
	remedies := false
	for _, r := range rows {
		cells = append(cells, []string{r.Name, string(r.Status), r.Detail, r.Remedy})
		remedies = remedies || r.Remedy != ""
	}
	columns := []Column{{Title: "CHECK"}, {Title: "STATUS", Style: checkStyle},
		{Title: "DETAIL"}, {Title: "REMEDY"}}
	if !remedies {
		columns = columns[:3]
	}
	return Table(w, columns, cells, opts)
}

func checkStyle(cell string) string {
	switch CheckStatus(cell) {
	case CheckOK:
		return styleGreen
	case CheckMissing, CheckRefused:
		return styleRed
	default:
		return styleYellow
	}
}

// LossRow is what a command loses without a capability, which this process has or not.
type LossRow struct {
	Capability string
	Has        bool
	Verb, Lost string
}

// LossTable writes what each capability is good for, by command.
func LossTable(w io.Writer, rows []LossRow, opts Options) error {
	var cells [][]string
	for _, r := range rows {
		has := "no"
		if r.Has {
			has = "yes"
		}
		cells = append(cells, []string{r.Capability, has, r.Verb, r.Lost})
	}
	return Table(w, []Column{{Title: "CAPABILITY"}, {Title: "HERE", Style: attachedStyle},
		{Title: "COMMAND"}, {Title: "LOST WITHOUT IT"}}, cells, opts)
}

// hookRecord is a row of HookTable in JSON.
type hookRecord struct {
	event.Header
	event.Hook
}

// HookTable writes the plan; in JSON one record of type "check" for each hook,
// which has a backend where a check has a status.
func HookTable(w io.Writer, hooks []event.Hook, opts Options) error {
	if opts.Format == FormatJSON {
		for _, h := range hooks {
			if err := WriteJSON(w, hookRecord{event.Head("check"), h}); err != nil {
				return err
			}
		}
		return nil
	}
	var cells [][]string
	for _, h := range hooks {
		attached := "no"
		if h.Attached {
			attached = "yes"
		}
		cells = append(cells, []string{h.Name, h.Backend, attached, h.Note})
	}
	return Table(w, []Column{
		{Title: "HOOK"}, {Title: "BACKEND"}, {Title: "ATTACHED", Style: attachedStyle},
		{Title: "NOTE"},
	}, cells, opts)
}

func attachedStyle(cell string) string {
	if cell == "yes" {
		return styleGreen
	}
	return styleYellow
}

// blindRecord is a row of BlindTable in JSON.
type blindRecord struct {
	event.Header
	CheckRow
	Cause event.Cause `json:"cause"`
	Stage event.Stage `json:"stage,omitzero"`
	Part  string      `json:"part,omitempty"` // which of these deaths; absent: all of them
	Shows string      `json:"shows"`          // what is seen instead
}

// BlindTable writes what is not told as what it is, and why; in JSON one record of
// type "check" for each, named "cause".
func BlindTable(w io.Writer, blind []event.Blind, opts Options) error {
	if opts.Format == FormatJSON {
		for _, b := range blind {
			row := CheckRow{Name: "cause", Status: CheckMissing, Detail: b.Why}
			if err := WriteJSON(w, blindRecord{
				event.Head("check"), row, b.Cause, b.Stage, b.Part, b.Shows,
			}); err != nil {
				return err
			}
		}
		return nil
	}
	var cells [][]string
	for _, b := range blind {
		stage := "any"
		if b.Stage != event.StageUnknown {
			stage = b.Stage.String()
		}
		cells = append(cells, []string{b.Cause.String(), stage, b.Part, b.Shows, b.Why})
	}
	return Table(w, []Column{{Title: "CAUSE"}, {Title: "STAGE"}, {Title: "WHICH"},
		{Title: "SHOWS AS"}, {Title: "WHY"}}, cells, opts)
}

// StatusLine says on one line of standard error what a ready record says.
func StatusLine(r event.Ready) string {
	var missing []string
	for _, h := range r.Hooks {
		if h.Attached {
			continue
		}
		name := h.Name
		if h.Note != "" {
			name += " (" + h.Note + ")"
		}
		missing = append(missing, name)
	}
	s := fmt.Sprintf("watching on Linux %s, backend %s, %s",
		r.Kernel, r.Backend, plural(uint64(len(r.Hooks)-len(missing)), "hook"))
	if len(missing) > 0 {
		s += "; not attached: " + strings.Join(missing, ", ")
	}
	return Terminal(s)
}
