// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/session"
)

// watchFlags are the filters and how to watch: the same on every live command.
type watchFlags struct {
	selection session.Selection
	backend   string
	btf       string
	rate      uint32
	ring      uint32
	changed   func(flag string) bool // nil without filters
}

func (f *watchFlags) add(cmd *cobra.Command) {
	s, flags := &f.selection, cmd.Flags()
	flags.StringSliceVar(&s.Ports, "port", nil, "server ports and ranges: 443,8000-8010")
	flags.StringSliceVar(&s.Addrs, "addr", nil, "server address or network")
	flags.StringSliceVar(&s.Clients, "client", nil, "client address or network")
	flags.StringVar(&s.NetNS, "netns", "", "network namespace: name, path, inode or PID")
	flags.StringSliceVar(&s.Causes, "cause", nil, "causes, by name")
	flags.StringSliceVar(&s.Stages, "stage", nil, "stages: syn, ack, timer, close, ingress")
	flags.IntVar(&s.PID, "pid", 0, "listeners held by this process")
	flags.StringVar(&s.Comm, "comm", "",
		"listeners held by processes of this name; globs allowed")
	flags.StringVar(&s.Cgroup, "cgroup", "",
		"listeners held from this cgroup or below; globs allowed")
	flags.StringVar(&s.Container, "container", "",
		"listeners held from the container of this ID or name; globs allowed")
	flags.StringVar(&s.Pod, "pod", "",
		"listeners held from this pod, NAMESPACE/NAME; globs allowed")
	f.addBackend(cmd)
	flags.Uint32Var(&f.rate, "rate", 100,
		"records per second, listener and cause; 0: all. Counts stay exact")
	ring := cli.DefaultRingSize()
	flags.Uint32Var(&f.ring, "ring-size", ring, "ring buffer in bytes, a power of two")
	// The help is the same everywhere.
	flags.Lookup("ring-size").DefValue = "1 to 4 MiB, by the machine's memory"
	completeList(cmd, "cause", session.CauseTitles())
	completeList(cmd, "stage", cli.StageNames())
	for _, name := range []string{"port", "addr", "client", "pid", "comm", "container", "pod",
		"rate", "ring-size"} {
		complete(cmd, name)
	}
	f.changed = flags.Changed
}

// addListeners adds the filters that a listener at rest can answer.
func (f *watchFlags) addListeners(cmd *cobra.Command) {
	every := &cobra.Command{}
	f.add(every)
	every.Flags().VisitAll(func(flag *pflag.Flag) {
		switch flag.Name {
		case "client", "cause", "stage", "rate", "ring-size":
		default:
			cmd.Flags().AddFlag(flag)
		}
	})
}

func (f *watchFlags) addBackend(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.backend, "backend", "auto",
		"hooks to use: "+strings.Join(cli.Backends(), ", "))
	cmd.Flags().StringVar(&f.btf, "btf", "",
		"file with the kernel's type information, if it has none itself")
	complete(cmd, "backend", cli.Backends()...)
}

// filterFlags are the flags that choose what is seen.
var filterFlags = []string{"port", "addr", "client", "netns", "cause", "stage", "pid", "comm",
	"cgroup", "container", "pod"}

// filters is the filters as they were given.
func filters(cmd *cobra.Command) (given []event.Filter) {
	for _, name := range filterFlags {
		if f := cmd.Flags().Lookup(name); f.Changed {
			given = append(given,
				event.Filter{Name: name,
					Value: strings.Trim(f.Value.String(), "[]")})
		}
	}
	return given
}

// watch reads the flags; errors are usage errors, found before privileges are.
func (f *watchFlags) watch(e env) (session.Watch, error) {
	w := session.Watch{Program: e.program(), Rate: f.rate, RingSize: f.ring, Backend: f.backend,
		BTF: f.btf}
	if err := w.Validate(); err != nil {
		return w, err
	}
	if f.changed != nil && f.changed("pid") && f.selection.PID == 0 {
		return w, usage("--pid 0 is no process ID")
	}
	return w, f.selection.Apply(&w)
}

// refuseEmpty stops a filter that an unset shell variable emptied: --port "$PORT"
// would otherwise silently watch everything.
func refuseEmpty(cmd *cobra.Command, _ []string) error {
	var err error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if text := f.Value.String(); err == nil && (text == "" || text == "[]") {
			err = usage("--%s has an empty value\nleave it out instead", f.Name)
		}
	})
	return err
}

// outputFlags are how to write.
type outputFlags struct {
	packets  bool // there are packets to write
	format   string
	time     string
	noColor  bool
	logLevel string
	changed  func(flag string) bool
}

func (f *outputFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&f.format, "output", "o", "table", strings.Join(f.formats(), ", "))
	flags.StringVar(&f.time, "time", "local", "times in tables: local, utc or relative")
	flags.BoolVar(&f.noColor, "no-color", false,
		"no colours, as with NO_COLOR or when not on a terminal")
	flags.StringVar(&f.logLevel, "log-level", "warn",
		"debug, info, warn or error, to standard error")
	complete(cmd, "output", f.formats()...)
	complete(cmd, "time", cli.Clocks()...)
	complete(cmd, "log-level", "debug", "info", "warn", "error")
	f.changed = flags.Changed
}

// timeGiven reports whether --time was asked for.
func (f *outputFlags) timeGiven() bool { return f.changed != nil && f.changed("time") }

// formats lists what --output takes.
func (f *outputFlags) formats() []string {
	if f.packets {
		return append(cli.Formats(), cli.FormatPackets)
	}
	return cli.Formats()
}

// writing reads the flags.
func (f *outputFlags) writing(e env) (cli.Writing, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return cli.Writing{}, usage("--log-level %q: want debug, info, warn or error",
			f.logLevel)
	}
	if !slices.Contains(f.formats(), f.format) {
		return cli.Writing{}, usage("--output %q: want one of %s", f.format,
			strings.Join(f.formats(), ", "))
	}
	if f.time != "utc" && f.timeGiven() &&
		(f.format == "json" || f.format == cli.FormatPackets) {
		return cli.Writing{}, usage("--time %s does not go with -o %s: it is for tables, and times there are in UTC", f.time, f.format)
	}
	width, terminal := e.terminal()
	if terminal && f.format == cli.FormatPackets {
		return cli.Writing{}, usage("-o %s writes packets, which a terminal cannot show: give them to a file or a program\n"+
			"-o pcapng > drops.pcapng\n-o pcapng | wireshark -k -i -", cli.FormatPackets)
	}
	screen := cli.Screen{Terminal: terminal, Width: width, Color: terminal && !f.noColor &&
		e.getenv("NO_COLOR") == ""}
	if terminal && e.height != nil {
		screen.Height = e.height()
	}
	writing, err := cli.NewWriting(f.format, f.time, screen)
	return writing.WithNotes(e.stderr), err
}

func (f *outputFlags) stream(e env, w session.Watch) (cli.Stream, error) {
	writing, err := f.writing(e)
	if err != nil {
		return nil, err
	}
	return writing.Stream(e.stdout, w.Rate), nil
}

func (f *outputFlags) logger(e env) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		level = slog.LevelWarn
	}
	return slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: level}))
}

// stdoutTerminal reports whether standard output is a terminal, and how wide.
func stdoutTerminal() (width int, ok bool) {
	size, ok := stdoutSize()
	return int(size.Col), ok
}

// stdoutHeight is how many rows the terminal has, 0 for unknown.
func stdoutHeight() int {
	size, _ := stdoutSize()
	return int(size.Row)
}

func stdoutSize() (unix.Winsize, bool) {
	size, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return unix.Winsize{}, false
	}
	return *size, true
}
