// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/synspy/synspy/test/schema"
)

// accepting is the address of a listener that accepts.
func accepting(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return l.Addr().String()
}

// TestCanary needs no privileges.
func TestCanary(t *testing.T) {
	t.Parallel()
	up := accepting(t)
	stdout, stderr, code := as(t, nil, "canary", up, "--count", "3", "--interval", "10ms", "-o",
		"json")
	if code != 0 || stderr != "synspy: connecting to 1 target every 10ms\n" {
		t.Fatalf("exit code %d, standard error:\n%s", code, stderr)
	}
	if records := decode(t, stdout); ofType(records, "canary") != 3 ||
		records[len(records)-1].Type != "canary_summary" {
		t.Errorf("got:\n%s", stdout)
	}
	stdout, stderr, code = as(t, nil, "canary", up, "localhost:1", "--count", "1")
	if code != 1 || !strings.HasSuffix(stderr, "synspy: no connection to localhost:1\n") {
		t.Errorf("exit code %d, standard error:\n%s", code, stderr)
	}
	for _, want := range []string{"nothing listens or a firewall rejects", up + ": 1 probe in ",
		"1 refused", "CONNECT TOOK"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in:\n%s", want, stdout)
		}
	}
}

// TestCanaryInterrupted ends with the summary.
func TestCanaryInterrupted(t *testing.T) {
	t.Parallel()
	p := start(t, "canary", accepting(t), "--interval", "10ms", "-o", "json")
	p.line()
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, code := p.exit()
	if _, err := schema.CheckLines([]byte(rest)); err != nil {
		t.Error(err)
	}
	lines := strings.Split(strings.TrimSpace(rest), "\n")
	var summary struct {
		Type string `json:"type"`
		Sent int    `json:"sent"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &summary); err != nil {
		t.Fatal(err)
	}
	if code != 0 || summary.Type != "canary_summary" || summary.Sent != len(lines) {
		t.Errorf("exit code %d, output:\n%s", code, rest)
	}
}

// TestCanaryEnds ends in time, also where nobody reads.
func TestCanaryEnds(t *testing.T) {
	t.Parallel()
	if _, stderr, code := as(t, nil, "canary", accepting(t), "--duration", "50ms", "--interval",
		"10ms"); code != 0 {
		t.Errorf("exit code %d, standard error:\n%s", code, stderr)
	}
	p := start(t, "canary", accepting(t))
	p.line()
	p.pipe.Close()
	if _, code := p.exit(); code != 0 || strings.Count(p.stderr.String(), "\n") != 1 {
		t.Errorf("exit code %d, standard error:\n%s", code, p.stderr.String())
	}
}
