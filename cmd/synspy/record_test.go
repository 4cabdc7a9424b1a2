// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/synspy/synspy/internal/event"
)

// TestRecord keeps the records while the screen shows them, and shows the same
// again from the file.
func TestRecord(t *testing.T) {
	netns := dropping(t)
	for _, format := range []string{"table", "wide", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "records")
			if err := os.WriteFile(file, bytes.Repeat([]byte("old\n"), 1<<20),
				0o600); err != nil {
				t.Fatal(err)
			}
			live, stderr, code := output(t,
				exec.Command(program, "trace", "--netns", netns, "--rate", "0",
					"--count", "3", "-o", format, "--write", file))
			if code != 0 {
				t.Fatalf("exit code %d, standard error:\n%s", code, stderr)
			}
			onlyStatus(t, stderr)
			kept, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			records := decode(t, string(kept))
			balanced(t, records)
			if n := ofType(records, "drop"); n != 3 || records[0].Type != "ready" {
				t.Errorf("%d drop records, want 3", n)
			}
			var again, said bytes.Buffer
			e := plainEnv(&again, &said)
			e.stdin = bytes.NewReader(kept)
			if code := run(t.Context(), []string{"trace", "--read", "-", "-o", format},
				e); code != 0 {
				t.Fatalf("exit code %d, standard error:\n%s", code, said.String())
			}
			if again.String() != live {
				t.Errorf("live:\n%s\nagain:\n%s", live, again.String())
			}
		})
	}
}

// TestReadAsNobody needs no privileges.
func TestReadAsNobody(t *testing.T) {
	t.Parallel()
	file := filepath.Join(filepath.Dir(program), "nobody.ndjson")
	if err := os.WriteFile(file, []byte(`{"v":1,"type":"drop","cause":"checksum"}`+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := as(t, nil, "trace", "--read", file)
	if code != 0 || !strings.Contains(stdout, "checksum") {
		t.Errorf("exit code %d, output:\n%s\nstandard error:\n%s", code, stdout, stderr)
	}
}

// TestReadCut: a recording whose end is missing is shown as far as it goes.
func TestReadCut(t *testing.T) {
	t.Parallel()
	const whole = `{"v":1,"type":"drop","cause":"checksum"}`
	for _, c := range []struct {
		text string
		want int
		says string
	}{
		{whole + "\n" + whole[:20], 1,
			"line 2, the last one, was cut short after 20 bytes"},
		{whole + "\n" + whole, 0, ""}, // only the newline is missing
		{whole[:20], 1, "line 1, the last one, was cut short"},
		{strings.Repeat("x", 1<<20), 1, "was cut short after 1048576 bytes"},
	} {
		var stdout, stderr bytes.Buffer
		e := plainEnv(&stdout, &stderr)
		e.stdin = strings.NewReader(c.text)
		code := run(t.Context(), []string{"trace", "--read", "-", "-o", "json"}, e)
		if code != c.want || !strings.Contains(stderr.String(), c.says) {
			t.Errorf("%.50q: exit code %d, standard error:\n%s", c.text, code,
				stderr.String())
		}
		if n := strings.Count(stdout.String(), whole); n != strings.Count(c.text, whole) {
			t.Errorf("%.50q: %d records shown", c.text, n)
		}
	}
}

// TestDiagnoseCut: a recording whose end is missing is judged as far as it goes, and the exit code
// says that it is damaged.
func TestDiagnoseCut(t *testing.T) {
	t.Parallel()
	const whole = `{"v":1,"type":"drop","time":"2026-11-22T04:55:01Z","cause":"checksum","stage":"ingress","action":"dropped"}`
	for text, judged := range map[string]bool{whole + "\n" + whole[:20]: true,
		whole[:20]: false} {
		var stdout, stderr bytes.Buffer
		e := plainEnv(&stdout, &stderr)
		e.stdin = strings.NewReader(text)
		code := run(t.Context(), []string{"diagnose", "--read", "-", "--exit-code"}, e)
		if code != 1 || !strings.Contains(stderr.String(), "the last one, was cut short") {
			t.Errorf("%.50q: exit code %d, standard error:\n%s", text, code,
				stderr.String())
		}
		if got := strings.Contains(stdout.String(),
			"1 handshake packet died"); got != judged {
			t.Errorf("%.50q: judged: %t; standard output:\n%s", text, got,
				stdout.String())
		}
	}
}

// TestReadFollows shows a record when it comes, not when the file ends, and ends
// at a signal while nothing comes.
func TestReadFollows(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	p := &process{Cmd: exec.Command(program, "trace", "--read", "-", "-o", "json"), t: t}
	p.Stdin = read
	p.begin()
	_ = read.Close()
	const whole = `{"v":1,"type":"drop","cause":"checksum"}` + "\n"
	if _, err := write.WriteString(whole); err != nil {
		t.Fatal(err)
	}
	if got := p.line(); got != whole {
		t.Errorf("got %q", got)
	}
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if rest, code := p.exit(); code != 0 || rest != "" {
		t.Errorf("exit code %d, output %q, standard error:\n%s", code, rest,
			p.stderr.String())
	}
}

// TestRecordOnFullDisk: the screen has its summary all the same.
func TestRecordOnFullDisk(t *testing.T) {
	t.Parallel()
	stdout, stderr, code := output(t, exec.Command(program, "trace", "--netns", dropping(t),
		"--write", "/dev/full"))
	if code != 1 || strings.Count(stderr, "no space left on device") != 1 ||
		!strings.Contains(stderr, "/dev/full") {
		t.Errorf("exit code %d, want 1; standard error:\n%s", code, stderr)
	}
	if !strings.Contains(stdout, "ledger balanced") {
		t.Errorf("no summary:\n%s", stdout)
	}
	e := plainEnv(new(bytes.Buffer), new(bytes.Buffer))
	e.stdin = strings.NewReader(`{"v":1,"type":"drop","cause":"checksum"}` + "\n")
	if code := run(t.Context(), []string{"trace", "--read", "-", "--write", "/dev/full"},
		e); code != 1 {
		t.Errorf("replay: exit code %d, want 1", code)
	}
}

// TestRecordWithoutScreen: the file has its summary also when nobody looks on.
func TestRecordWithoutScreen(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "records")
	p := start(t, "trace", "--netns", dropping(t), "--write", file)
	p.line()
	if err := p.pipe.Close(); err != nil {
		t.Fatal(err)
	}
	if _, code := p.exit(); code != 0 {
		t.Errorf("exit code %d, want 0; standard error:\n%s", code, p.stderr.String())
	}
	onlyStatus(t, p.stderr.String())
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	records := decode(t, string(kept))
	if last := records[len(records)-1]; last.Type != "summary" ||
		last.Delivered != ofType(records, "drop") {
		t.Errorf("the last record is %+v", last)
	}
}

// TestRefusedRecordCostsNothing: what was in the file is lost only to a run that
// begins.
func TestRefusedRecordCostsNothing(t *testing.T) {
	t.Parallel()
	file := filepath.Join(filepath.Dir(program), "precious")
	if err := os.WriteFile(file, []byte("precious"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := as(t, nil, "trace", "--write", file); code != 3 {
		t.Errorf("exit code %d, want 3; standard error:\n%s", code, stderr)
	}
	if kept, err := os.ReadFile(file); err != nil || string(kept) != "precious" {
		t.Errorf("it has %q, %v", kept, err)
	}
}

// TestPackets go to no terminal; what is for people goes to standard error.
func TestPackets(t *testing.T) {
	var stdout, stderr bytes.Buffer
	e := plainEnv(&stdout, &stderr)
	e.terminal = func() (int, bool) { return 80, true }
	if code := run(t.Context(), []string{"trace", "-o", "pcapng"}, e); code != 2 ||
		!strings.Contains(stderr.String(), "wireshark -k -i -") || stdout.Len() > 0 {
		t.Errorf("to a terminal: exit code %d, standard error:\n%s", code, stderr.String())
	}
	stderr.Reset()
	if code := run(t.Context(), []string{"trace", "-o", "pcapng", "--netns", dropping(t),
		"--count", "2"},
		plainEnv(&stdout, &stderr)); code != 0 {
		t.Errorf("exit code %d, standard error:\n%s", code, stderr.String())
	}
	if !bytes.HasPrefix(stdout.Bytes(), []byte{0x0a, 0x0d, 0x0d, 0x0a}) {
		t.Errorf("no pcapng: %q", stdout.Bytes())
	}
	// IPv4, TCP, and a comment: packets are in it.
	if !bytes.Contains(stdout.Bytes(), []byte("accept_queue_full")) ||
		!bytes.Contains(stdout.Bytes(), []byte{0x45, 0x00, 0x00}) {
		t.Errorf("no packets: %q", stdout.Bytes())
	}
	for _, want := range []string{" written\n", "ledger balanced"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("standard error does not say %q:\n%s", want, stderr.String())
		}
	}
}

// TestInterruptedRecord has its summary in the file too.
func TestInterruptedRecord(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "records")
	p := start(t, "trace", "--netns", dropping(t), "-o", "json", "--write", file)
	text := p.line() + p.line()
	time.Sleep(10 * time.Millisecond)
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, code := p.exit()
	kept, err := os.ReadFile(file)
	if code != 0 || err != nil || string(kept) != text+rest {
		t.Errorf("exit code %d, %v; the file has %d bytes, the screen %d", code, err,
			len(kept), len(text+rest))
	}
}

// TestRecountIsTheCount: a filter that everything passes counts the records again, and comes to
// what was counted live.
func TestRecountIsTheCount(t *testing.T) {
	t.Parallel()
	kept, stderr, code := output(t, exec.Command(program, "trace", "--netns", dropping(t),
		"--rate", "5", "--count", "7", "-o", "json"))
	if code != 0 {
		t.Fatalf("exit code %d, standard error:\n%s", code, stderr)
	}
	var again, said bytes.Buffer
	e := plainEnv(&again, &said)
	e.stdin = strings.NewReader(kept)
	if code := run(t.Context(), []string{"trace", "--read", "-", "-o", "json", "--stage",
		"syn,ack,timer,close,ingress"}, e); code != 0 {
		t.Fatalf("exit code %d, standard error:\n%s", code, said.String())
	}
	live, read := summaryOf(t, kept), summaryOf(t, again.String())
	if read.Recount == nil || read.Recount.Unsure > 0 {
		t.Errorf("counted again: %+v", read.Recount)
	}
	read.Recount, read.Handshakes = nil, live.Handshakes // those held back have no record of their own
	if diff := cmp.Diff(live, read, cmp.Comparer(func(a, b netip.Addr) bool {
		return a == b
	}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("live and read differ (-live +read):\n%s", diff)
	}
}

func summaryOf(t *testing.T, text string) event.Summary {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(text), "\n")
	record, err := event.Decode([]byte(lines[len(lines)-1]))
	summary, ok := record.(*event.Summary)
	if err != nil || !ok {
		t.Fatalf("%v: the last line is no summary: %s", err, lines[len(lines)-1])
	}
	return *summary
}

// TestRecordApart: the screen and the records do not write over each other.
func TestRecordApart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "both")
	for _, args := range [][]string{{"trace", "--read", "/dev/null", "--write", file},
		{"diagnose", "--read", "/dev/null", "--report", file}} {
		screen, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, args...)
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = screen, &stderr
		_ = cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != 2 ||
			!strings.Contains(stderr.String(), "are the same file") {
			t.Errorf("%v: exit code %d, standard error:\n%s", args, code,
				stderr.String())
		}
		_ = screen.Close()
	}
}
