// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// value is what a count is, zero where it is not known: only for sums that may leave it out.
func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// many writes a count with its noun.
func many(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return thousands(n) + " " + noun + "s"
}

func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// thousandsWere is a count with its verb: "1 was", "30 were".
func thousandsWere(n uint64) string {
	if n == 1 {
		return "1 was"
	}
	return thousands(n) + " were"
}

// seconds writes milliseconds for a sentence: "4.9 s", "250 ms".
func seconds(ms float64) string {
	if ms < 1000 {
		return fmt.Sprintf("%.0f ms", ms)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", ms/1000), ".0") + " s"
}

func percent(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(int(part*1000/whole+0.5)) / 10
}

// where names a listener in a sentence: "0.0.0.0:443".
func where(l event.Listener) string {
	addr := "*"
	if l.Addr.IsValid() {
		addr = l.Addr.String()
		if l.Addr.Is6() {
			addr = "[" + addr + "]"
		}
	}
	return addr + ":" + strconv.Itoa(int(l.Port))
}

// who names a process in a sentence: `nginx (pid 812)`.
func who(p event.Process) string {
	if p.Comm == "" {
		return fmt.Sprintf("pid %d", p.PID)
	}
	return fmt.Sprintf("%s (pid %d)", Said(p.Comm), p.PID)
}

func seen(what string, v any, unit string) event.Evidence {
	return event.Evidence{What: what, Value: v, Unit: unit}
}

// be and them go with a count.
func be(n uint64) string {
	if n == 1 {
		return "was"
	}
	return "were"
}

func them(n uint64) string {
	if n == 1 {
		return "it"
	}
	return "them"
}
