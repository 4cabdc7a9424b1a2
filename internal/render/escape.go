// SPDX-License-Identifier: Apache-2.0

package render

import (
	"unicode"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// Terminal makes a string from outside safe to print: control characters,
// invalid UTF-8, and the format characters that reorder or hide text become
// \x1b, \u202e or \U000e0001. A terminal obeys the first kind, a reader
// believes the last.
func Terminal(s string) string {
	if plain(s) {
		return s
	}
	return string(appendTerminal(nil, s))
}

func plain(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

func appendTerminal(b []byte, s string) []byte {
	if plain(s) {
		return append(b, s...)
	}
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1, r < 0x80 && hidden(r):
			b = append(b, '\\', 'x', hexDigits[s[i]>>4], hexDigits[s[i]&15])
		case !hidden(r):
			b = append(b, s[i:i+n]...)
		case r > 0xffff:
			b = appendHex(append(b, '\\', 'U'), r, 8)
		default:
			b = appendHex(append(b, '\\', 'u'), r, 4)
		}
		i += n
	}
	return b
}

func appendHex(b []byte, r rune, digits int) []byte {
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		b = append(b, hexDigits[r>>shift&15])
	}
	return b
}

// hidden reports whether a character acts instead of being seen: C0, DEL and C1;
// format characters, among them the bidirectional controls, zero-width ones
// and the byte order mark; line and paragraph separators.
func hidden(r rune) bool {
	if r < 0x7f {
		return r < 0x20
	}
	return r < 0xa0 || r == 0xad || r > 0x5ff &&
		unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}
