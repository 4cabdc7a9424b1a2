// SPDX-License-Identifier: Apache-2.0

package app

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
)

// TestReportFile: one that is not written leaves what was there, be it nothing, and one of the
// records that it would be of is refused.
func TestReportFile(t *testing.T) {
	fresh, old := filepath.Join(t.TempDir(), "fresh"), filepath.Join(t.TempDir(), "old")
	if err := os.WriteFile(old, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fresh, old} {
		r, err := OpenReport(path)
		if err != nil {
			t.Fatal(err)
		}
		from, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Spare(from); !errors.Is(err, cli.ErrUsage) {
			t.Errorf("%s over itself: %v, want a usage error", path, err)
		}
		if err := errors.Join(from.Close(), r.Close()); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(fresh); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a report that was not written: %v", err)
	}
	if text, err := os.ReadFile(old); string(text) != "kept" {
		t.Errorf("the report that was there: %q, %v", text, err)
	}
	r, err := OpenReport(old)
	if err == nil {
		err = errors.Join(r.write(event.Diagnosis{Verdict: "all is well."}), r.Close())
	}
	if text, _ := os.ReadFile(old); err != nil || len(text) < 100 {
		t.Errorf("a report of %d bytes: %v", len(text), err)
	}
	if r, err := OpenReport("/dev/null"); err != nil || r.write(event.Diagnosis{}) != nil ||
		r.Close() != nil {
		t.Errorf("to a device: %v", err)
	}
}

// TestOpenOut opens what somebody may have put in the place of a file to write to.
func TestOpenOut(t *testing.T) {
	private, public := t.TempDir(), filepath.Join(t.TempDir(), "tmp")
	if err := errors.Join(os.Mkdir(public, 0o700),
		os.Chmod(public, 0o777|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(private, "secret")
	loose := filepath.Join(private, "loose")
	for path, mode := range map[string]os.FileMode{secret: 0o600, loose: 0o644} {
		if err := errors.Join(os.WriteFile(path, []byte("kept"), mode),
			os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string, put func(path string) error) string {
		path := filepath.Join(public, name)
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	others := func(path string) error {
		return errors.Join(os.WriteFile(path, nil, 0o666), os.Chmod(path, 0o666),
			os.Chown(path, 65534, 65534))
	}
	for path, want := range map[string]bool{
		filepath.Join(public, "new"): true,
		loose:                        true,
		"/dev/null":                  true,
		in("symlink",
			func(path string) error {
				return os.Symlink(secret,
					path)
			}): false,
		in("dangling",
			func(path string) error {
				return os.Symlink(filepath.Join(private,
					"nothing"), path)
			}): false,
		in("hard",
			func(path string) error {
				return os.Link(secret,
					path)
			}): false,
		in("fifo",
			func(path string) error {
				return unix.Mkfifo(path,
					0o666)
			}): false,
		in("others", others): false,
		public:               false,
	} {
		o, err := cli.OpenOut(path)
		if err == nil {
			err = errors.Join(o.Begin(), o.Close())
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() &&
				info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
		}
		if opened := err == nil; opened != want {
			t.Errorf("%s: opened: %v (%v), want %v", path, opened, err, want)
		}
	}
	if text, err := os.ReadFile(secret); string(text) != "kept" {
		t.Errorf("what somebody led to: %q, %v", text, err)
	}
}

// TestOpenOutDescriptor writes to what the process was given, where it stands.
func TestOpenOutDescriptor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "given")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString("before\n"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{fmt.Sprintf("/dev/fd/%d", file.Fd()),
		fmt.Sprintf("/proc/self/fd/%d", file.Fd())} {
		o, err := cli.OpenOut(name)
		if err != nil {
			t.Fatal(err)
		}
		_, err = o.WriteString("after\n")
		if err := errors.Join(o.Begin(), err, o.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(path); string(text) != "before\nafter\nafter\n" {
		t.Errorf("%q, %v", text, err)
	}
	input, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	for _, name := range []string{"/dev/fd/9999", fmt.Sprintf("/dev/fd/%d", input.Fd())} {
		if o, err := cli.OpenOut(name); err == nil {
			o.Close()
			t.Errorf("%s can be written", name)
		}
	}
}

// TestOpenOutPipe writes to a pipe with a reader.
func TestOpenOutPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	o, err := cli.OpenOut(path)
	if err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 1<<20) // more than a pipe holds
	go func() {
		_, err := o.Write(text)
		if err := errors.Join(o.Begin(), err, o.Close()); err != nil {
			t.Error(err)
		}
	}()
	if got, err := io.ReadAll(reader); len(got) != len(text) || err != nil {
		t.Errorf("%d bytes came through, %v", len(got), err)
	}
}
