// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// subjectsSince is when the rule for subjects came; older commits stay as they are. A date rather
// than a commit: it holds in a shallow clone, on a detached head and after a rebase alike.
const subjectsSince = "2026-11-28T15:40:00Z"

const subjectLimit = 72 // columns

// subjectPattern: one or more parts of the tree, then what the commit does to them.
var subjectPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_./-]*(, [a-z0-9][a-z0-9_./-]*)*: \S`)

func TestCommitSubjects(t *testing.T) {
	log := git(t, "log", "--no-merges", "--since="+subjectsSince, "--format=%h %s")
	for line := range strings.Lines(log) {
		hash, subject, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if wrong := wrongSubject(subject); wrong != "" {
			t.Errorf("commit %s: %s: reword it (git rebase -i): %s", hash, wrong,
				subject)
		}
	}
}

func TestWrongSubject(t *testing.T) {
	for subject, want := range map[string]string{
		"probe: read the namespace from the dst entry": "",
		"event, diagnose: name every part":             "",
		"test/vm: boot 7.1":                            "",
		"Read the namespace":                           "no part",
		"Probe: read the namespace":                    "no part",
		"probe:read":                                   "no part",
		"probe: " + strings.Repeat("a", 66):            "73 columns",
		"probe: " + strings.Repeat("é", 65):            "",
	} {
		if got := wrongSubject(subject); (got == "") != (want == "") ||
			!strings.Contains(got, want) {
			t.Errorf("%q: got %q, want %q", subject, got, want)
		}
	}
}

// wrongSubject says what is wrong with the subject of a commit, or "".
func wrongSubject(subject string) string {
	if !subjectPattern.MatchString(subject) {
		return `the subject names no part of the tree, as "probe: do something" does`
	}
	if n := utf8.RuneCountInString(subject); n > subjectLimit {
		return "the subject has " + strconv.Itoa(n) + " columns, and may have " +
			strconv.Itoa(subjectLimit)
	}
	return ""
}
