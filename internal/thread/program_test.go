// SPDX-License-Identifier: Apache-2.0

package thread

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/event"
)

// TestCommand: what an interpreter runs, and what a process wrote over its arguments.
func TestCommand(t *testing.T) {
	for _, tt := range []struct {
		name   string
		args   []string
		script string
		title  string
	}{
		{"python3.11", []string{"/usr/bin/python3.11", "-u", "/usr/local/bin/gunicorn",
			"app:app"}, "gunicorn", ""},
		{"python3", []string{"python3", "-m", "http.server", "80"}, "http.server", ""},
		{"python3", []string{"python3", "-W", "ignore", "server.py"}, "server.py", ""},
		{"python3", []string{"python3", "-c", "import socket"}, "", ""},
		{"python3.11", []string{"gunicorn: master [app]"}, "", "gunicorn"},
		{"ruby3.1", []string{"puma 6.4.2 (tcp://0.0.0.0:9292) [shop]"}, "", "puma"},
		{"nginx", []string{"nginx: worker process"}, "", "nginx"},
		{"java", []string{"java", "-Xmx1g", "-cp", "/a.jar:/b.jar", "-Dx=y",
			"org.apache.catalina.startup.Bootstrap",
			"start"}, "org.apache.catalina.startup.Bootstrap", ""},
		{"java", []string{"java", "-jar", "/srv/shop.jar"}, "shop.jar", ""},
		{"node", []string{"node", "--inspect", "-r", "dotenv", "/srv/server.js"},
			"server.js", ""},
		{"redis-server", []string{"redis-server", "/etc/redis.conf"}, "", ""},
		{"redis-server", []string{"/usr/bin/redis-server 127.0.0.1:6379"}, "",
			"redis-server"},
		{"python3", []string{""}, "", ""},
	} {
		script, title := commandOf(tt.name, []byte(strings.Join(tt.args, "\x00")+"\x00"))
		if script != tt.script || title != tt.title {
			t.Errorf("%v: %q, %q", tt.args, script, title)
		}
	}
}

// TestProgram asks about a process of its own.
func TestProgram(t *testing.T) {
	sleep := exec.Command("sleep", "10")
	if err := sleep.Start(); err != nil {
		t.Skip(err)
	}
	defer func() { _ = sleep.Wait() }()
	defer func() { _ = sleep.Process.Kill() }()
	pid := uint32(sleep.Process.Pid)
	p, err := ProgramOf("/proc", pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	link, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(sleep.Process.Pid), "exe"))
	if err != nil {
		t.Skip(err)
	}
	if p != (event.Software{Name: filepath.Base(link)}) {
		t.Errorf("%+v, want %s", p, link)
	}
	if _, err := ProgramOf("/proc", pid, 1); err == nil {
		t.Error("another process's start was taken for this one's")
	}
}
