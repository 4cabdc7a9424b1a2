// SPDX-License-Identifier: Apache-2.0

package render

import (
	"math"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"
)

// Thousands writes 4310 as 4,310.
func Thousands(n uint64) string { return string(appendThousands(nil, n)) }

// count writes a number for people, or plain.
func (o Options) count(n uint64) string { return string(o.appendCount(nil, n)) }

func (o Options) appendCount(b []byte, n uint64) []byte {
	if o.Plain {
		return strconv.AppendUint(b, n, 10)
	}
	return appendThousands(b, n)
}

// plural is as the function plural, or plain.
func (o Options) plural(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return o.count(n) + " " + noun + "s"
}

// most is how many characters of a text are shown.
func (o Options) most(n int) int {
	if o.Plain {
		return unlimited
	}
	return n
}

func appendThousands(b []byte, n uint64) []byte {
	if n < 1000 {
		return strconv.AppendUint(b, n, 10)
	}
	b = appendThousands(b, n/1000)
	n %= 1000
	return append(b, ',', byte('0'+n/100), byte('0'+n/10%10), byte('0'+n%10))
}

// plural writes "1 listener" and "3 listeners".
func plural(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return Thousands(n) + " " + noun + "s"
}

// seconds writes a duration as people say it: 10 s, 1.5 s, 2 min, 1 h 5 min.
func seconds(d time.Duration) string {
	if d < time.Minute {
		return strconv.FormatFloat(d.Round(100*time.Millisecond).Seconds(), 'f', -1, 64) +
			" s"
	}
	d = d.Round(time.Second)
	h, m, s := int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60
	out := ""
	for _, part := range []struct {
		n    int
		unit string
	}{{h, "h"}, {m, "min"}, {s, "s"}} {
		if part.n == 0 {
			continue
		}
		if out != "" {
			out += " "
		}
		out += strconv.Itoa(part.n) + " " + part.unit
	}
	return out
}

// appendEndpoint writes ADDR:PORT. The zone of a link-local address is an
// interface's name, which comes from outside.
func appendEndpoint(b []byte, addr netip.Addr, port uint16) []byte {
	switch {
	case !addr.IsValid():
		b = append(b, '?')
	case addr.Zone() != "":
		b = append(b, '[')
		b = appendTerminal(b, addr.String())
		b = append(b, ']')
	case addr.Is4():
		b = addr.AppendTo(b)
	default:
		b = append(b, '[')
		b = addr.AppendTo(b)
		b = append(b, ']')
	}
	return strconv.AppendUint(append(b, ':'), uint64(port), 10)
}

// elide shortens b[from:] to at most width characters, in the middle where
// both ends of it matter, and returns how many there are.
func elide(b []byte, from, width int, middle bool) ([]byte, int) {
	n := utf8.RuneCount(b[from:])
	if n <= width {
		return b, n
	}
	if width <= 0 {
		return b[:from], 0
	}
	tail := 0
	if middle {
		tail = width / 2
	}
	text := []rune(string(b[from:]))
	b = append(b[:from], string(text[:width-1-tail])...)
	b = append(b, "…"...)
	return append(b, string(text[len(text)-tail:])...), width
}

// The ANSI styles in use.
const (
	styleNone   = ""
	styleRed    = "\x1b[31m"
	styleLoud   = "\x1b[1;31m"
	styleGreen  = "\x1b[32m"
	styleYellow = "\x1b[33m"
	styleCyan   = "\x1b[36m"
	styleDim    = "\x1b[2m"
	styleReset  = "\x1b[0m"
)

// paint wraps safe text in a style, where colour is wanted.
func (o Options) paint(style, text string) string {
	if !o.Color || style == styleNone || text == "" {
		return text
	}
	return style + text + styleReset
}

// unlimited is the width of a column that is not cut.
const unlimited = math.MaxInt32
