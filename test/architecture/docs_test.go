// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// A link of Markdown to a file of this tree, perhaps with an anchor.
	docLink = regexp.MustCompile(`\]\(([^)#:]*)(#[^)]*)?\)`)
	// A file or folder of this tree, in backticks.
	docPath = regexp.MustCompile("`((?:bpf|cmd|docs|internal|scripts|test)/[A-Za-z0-9_./-]+)`")
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// TestDocsNameWhatIsThere: links lead somewhere, and files that pages name exist.
func TestDocsNameWhatIsThere(t *testing.T) {
	paths := 0
	for _, name := range trackedFiles(t) {
		if !strings.HasSuffix(name, ".md") {
			continue
		}
		content, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		for _, link := range docLink.FindAllStringSubmatch(string(content), -1) {
			to := filepath.Join(root, name)
			if link[1] != "" {
				to = filepath.Join(root, filepath.Dir(name), link[1])
			}
			if wrong := follow(to, link[2]); wrong != "" {
				t.Errorf("%s: the link to %s%s %s", name, link[1], link[2], wrong)
			}
		}
		for _, path := range docPath.FindAllStringSubmatch(string(content), -1) {
			paths++
			if _, err := os.Stat(filepath.Join(root, path[1])); err != nil {
				t.Errorf("%s names %s, which is not there: say where it went", name,
					path[1])
			}
		}
	}
	if paths < 30 {
		t.Errorf("only %d paths found", paths)
	}
}

// follow says why a link leads nowhere, or "".
func follow(to, anchor string) string {
	content, err := os.ReadFile(to)
	if info, statErr := os.Stat(to); statErr == nil && info.IsDir() {
		return ""
	}
	if err != nil {
		return "leads nowhere"
	}
	if anchor == "" {
		return ""
	}
	for _, h := range heading.FindAllStringSubmatch(string(content), -1) {
		if "#"+anchorOf(h[1]) == anchor {
			return ""
		}
	}
	return "has an anchor that no heading makes"
}

// anchorOf is what GitHub makes of a heading.
func anchorOf(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' ||
			r > 0x7f:
			return r
		default:
			return -1
		}
	}, strings.ToLower(heading))
}

func TestAnchorOf(t *testing.T) {
	for heading, want := range map[string]string{
		"What it costs":    "what-it-costs",
		"`other_drops`":    "other_drops",
		"accept() fails":   "accept-fails",
		"IPv4 -> and more": "ipv4---and-more",
	} {
		if got := anchorOf(heading); got != want {
			t.Errorf("%s: got %s, want %s", heading, got, want)
		}
	}
}
