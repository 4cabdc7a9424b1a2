// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/lab/server"
)

// TestReport: names that are HTML do nothing in a browser that opens the report. The same
// names in a page that does not escape them show that it would be seen.
func TestReport(t *testing.T) {
	var mu sync.Mutex
	asked := make(map[string]int)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked[r.URL.Path]++
		http.NotFound(w, r)
	}))
	t.Cleanup(server.Close)
	evil := func(page string) string {
		return fmt.Sprintf("\x1b]0;a\a</title></style></svg>\"'><script>console.log('ran')</script><img src='%s/%s' onerror=\"console.log('ran')\">\x1b[2J",
			server.URL, page)
	}
	dir := t.TempDir()
	report, unescaped := filepath.Join(dir, "report.html"), filepath.Join(dir, "unescaped.html")
	records := recordHostile(t, filepath.Join(dir, "records"), evil("report"))
	out, err := exec.Command(program, "diagnose", "--read", records, "--report",
		report).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, os.WriteFile(unescaped, []byte("<!doctype html>"+evil("unescaped")), 0o600))

	var wait sync.WaitGroup
	var got, control opened
	wait.Go(func() { control = openPage(t, unescaped) })
	wait.Go(func() { got = openPage(t, report) })
	wait.Wait()
	mu.Lock()
	defer mu.Unlock()
	if asked["/unescaped"] == 0 || len(control.console) < 2 ||
		!element.MatchString(control.dom) {
		t.Fatalf("names that act are not seen: the test is not what it should be: %v, %q, %.1000s\n%s", asked, control.console, control.dom, control.log)
	}
	if asked["/report"] != 0 {
		t.Errorf("the report asked the network %d times", asked["/report"])
	}
	if len(got.console) != 0 {
		t.Errorf("console: %q", got.console)
	}
	if found := element.FindString(got.dom); found != "" {
		t.Errorf("%s in the DOM", found)
	}
	if !strings.Contains(got.dom, "<svg") && !strings.Contains(got.dom, "By client") ||
		strings.Count(got.dom, "&lt;script&gt;") < 3 {
		t.Errorf("no report, or nothing hostile in it: the test is not what it should be: %s\n%s", got.dom, got.log)
	}
}

// element is what a report never has.
var element = regexp.MustCompile(`(?i)<(script|img|iframe|link|object|embed|base|form|a)[ >]`)

// recordHostile writes a trace whose owners are called by a name wherever they have one.
func recordHostile(t *testing.T, file, name string) string {
	t.Helper()
	w := newWorld(t)
	startServer(t, w, "hostile", server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
	fill(t, w, server4, 3)
	tr := start(t, "--netns", w.Path(), "--write", file)
	loseSYNs(t, w, server4, 3)
	tr.stop()
	text, err := os.ReadFile(file)
	must(t, err)
	var renamed bytes.Buffer
	to := json.NewEncoder(&renamed)
	for line := range bytes.Lines(text) {
		var record map[string]any
		from := json.NewDecoder(bytes.NewReader(line))
		from.UseNumber()
		must(t, from.Decode(&record))
		owners := []any{}
		if record["type"] == "drop" {
			owners = append(record["processes"].([]any), record)
		}
		for _, owner := range owners {
			o := owner.(map[string]any)
			if _, ok := o["comm"]; ok {
				o["comm"] = name
			}
			o["pod"] = map[string]string{"namespace": name, "name": name,
				"container": name, "uid": name}
			o["container"] = map[string]string{"id": name, "name": name,
				"runtime": name}
		}
		must(t, to.Encode(record))
	}
	must(t, os.WriteFile(file, renamed.Bytes(), 0o600))
	return file
}

// opened is what a browser made of a page.
type opened struct {
	dom     string
	console []string
	log     string
}

// openPage opens a file in a headless browser, and returns when it is loaded.
func openPage(t *testing.T, path string) (o opened) {
	home, err := os.MkdirTemp("", "synspy-browser-") // it still writes there while it ends
	if err != nil {
		t.Error(err)
		return o
	}
	defer os.RemoveAll(home)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu",
		"--disable-quic", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--disable-component-update",
		"--disable-sync", "--disable-crash-reporter",
		"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--user-data-dir="+home,
		"--enable-logging=stderr", "--v=0",
		"--dump-dom", (&url.URL{Scheme: "file", Path: path}).String())
	cmd.Env = append(os.Environ(), "HOME="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // with all its processes
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var log bytes.Buffer
	cmd.Stderr = &log
	dom, err := cmd.Output()
	if err != nil {
		t.Errorf("chromium: %v: %s", err, &log)
	}
	o.dom, o.log = string(dom), log.String()
	for line := range strings.Lines(o.log) {
		if strings.Contains(line, ":CONSOLE:") {
			o.console = append(o.console, strings.TrimSpace(line))
		}
	}
	return o
}
