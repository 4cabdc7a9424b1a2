// SPDX-License-Identifier: Apache-2.0

package instructions

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"

	"github.com/synspy/synspy/test/bench/command"
)

// addFlags defines what to count.
func (c *countConfig) addFlags(flags *flag.FlagSet) {
	c.verbs, c.backends, c.operations = countingVerbs, countingBackends, operations
	flags.Var(&command.NameList{Into: &c.verbs, Known: countingVerbs}, "verbs", "count for these `verbs`")
	flags.Var(&command.NameList{Into: &c.backends, Known: countingBackends}, "backends", "count for these `backends`")
	flags.Var(&operationPattern{into: &c.operations}, "operations", "count the operations whose names match this `regexp`")
	flags.IntVar(&c.chunks, "chunks", 32, "count each operation so many times "+strconv.Itoa(chunkOperations))
	flags.BoolVar(&c.programs, "programs", true, "count by BPF program too")
}

func (c *countConfig) wants(verb string) bool { return slices.Contains(c.verbs, verb) }

// operationPattern is a flag: the operations that match.
type operationPattern struct {
	text string
	into *[]operation
}

func (p *operationPattern) String() string { return p.text }

func (p *operationPattern) Set(value string) error {
	wanted, err := regexp.Compile(value)
	if err != nil {
		return err
	}
	p.text = value
	*p.into = slices.DeleteFunc(slices.Clone(operations), func(o operation) bool { return !wanted.MatchString(o.name) })
	if len(*p.into) == 0 {
		return fmt.Errorf("no operation matches %q", value)
	}
	return nil
}

// Count counts on this machine: the guest's side of bench instructions.
func Count(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench count", flag.ContinueOnError)
	flags.SetOutput(stderr)
	c := countConfig{port: command.GuestPort, stderr: stderr}
	out := flags.String("out", "", "write what was counted to this `file`")
	flags.StringVar(&c.synspy, "synspy", command.GuestSynspy, "`path` of synspy")
	flags.StringVar(&c.base, "base", "", "`path` of another synspy, to compare with")
	flags.StringVar(&c.peer, "peer", "", "`path` of the bpftrace script, or nothing")
	c.addFlags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if c.self, err = os.Executable(); err != nil {
		return err
	}
	all, err := c.count(ctx)
	if err != nil {
		return err
	}
	content, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return os.WriteFile(*out, content, 0o644)
}
