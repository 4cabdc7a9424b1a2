// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGoldens: the records in the goldens of internal/render are what the schema says.
func TestGoldens(t *testing.T) {
	files, err := filepath.Glob("../../internal/render/testdata/*json*.golden")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := CheckLines(content)
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		n += lines
	}
	if n < 20 {
		t.Errorf("only %d records found", n)
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct{ record, want string }{
		{`{"v":1,"type":"lost","count":3,"cause":"accept_queue_full"}`, ""},
		{`{"v":1,"type":"lost"}`, "count"},
		{`{"v":1,"type":"lost","count":-1}`, "minimum"},
		{`{"v":2,"type":"lost","count":1}`, "/v"},
		{`{"v":1,"type":"lost","count":1,"new":1}`, "new"},
		{`{"v":1,"type":"lost","count":1,"cause":"new_cause"}`, "cause"},
		{`{"v":1,"type":"new"}`, "type"},
		{`{"v":1,"type":"drop","time":"2026-11-22T04:55:01Z"}`, "time"},
		{`{"v":1,"type":"drop","listener":{"port":80,"cookie":"x"}}`, "cookie"},
		{`{"v":1,"type":"drop","client":null}`, "client"},
	} {
		err := Check([]byte(tt.record))
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.record, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: got %v, want something about %s", tt.record, err, tt.want)
		}
	}
}

// TestLaterVersions: the published schema lets pass what later versions may add.
func TestLaterVersions(t *testing.T) {
	s, err := published()
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range []map[string]any{
		{"v": 1, "type": "new"},
		{"v": 1, "type": "lost", "count": 1, "new": "member"},
		{"v": 1, "type": "lost", "count": 1, "cause": "new_cause"},
	} {
		if err := s.Validate(record); err != nil {
			t.Errorf("%v: %v", record, err)
		}
	}
}
