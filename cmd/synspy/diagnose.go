// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/synspy/synspy/internal/app"
	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/collect"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/listing"
	"github.com/synspy/synspy/internal/recording"
)

// shortestDiagnosis is what is too little to say anything.
const shortestDiagnosis = 100 * time.Millisecond

func newDiagnose(e env) *cobra.Command {
	var (
		watch              watchFlags
		output             outputFlags
		form, read, report string
		duration           time.Duration
		exitCode           bool
	)
	cmd := &cobra.Command{
		Use:   "diagnose",
		Short: "One-off root-cause session: verdict, evidence, fix",
		Long: `One-off root-cause session: verdict, evidence, fix.

It watches for a while, says how it goes on standard error, and then which queue
dropped, whose it is, why, and what to change; or that the listen path is innocent.
Ctrl-C ends the watching early; what was seen is judged all the same. --read judges
the records of a trace --write instead, and says which findings they cannot support.`,
		Example: `  sudo synspy diagnose --port 443
  sudo synspy diagnose --pod prod/api-* --duration 2m --report incident.html
  sudo synspy diagnose --port 443 -o json --exit-code
  synspy diagnose --read incident.ndjson`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if !slices.Contains(app.DiagnosisForms(), form) {
				return usage("--output %q: want one of %s", form,
					strings.Join(app.DiagnosisForms(), ", "))
			}
			if duration < shortestDiagnosis {
				return usage("--duration %v: want %v or more", duration,
					shortestDiagnosis)
			}
			output.format = "table"
			if form == "json" {
				output.format = "json"
			}
			writing, err := output.writing(e)
			if err != nil {
				return err
			}
			w, err := watch.watch(e)
			if read == "" && err != nil {
				return err
			}
			var page *app.Report
			if report != "" {
				if page, err = app.OpenReport(report); err != nil {
					return err
				}
				defer func() { err = errors.Join(err, page.Close()) }()
				if err := page.Apart(e.stdout); err != nil {
					return err
				}
			}
			var d event.Diagnosis
			if read != "" {
				d, err = readDiagnosis(cmd, e, read, &watch, &output, page)
			} else {
				d, err = collect.Diagnose(cmd.Context(),
					collect.DiagnoseOptions{Watch: w, Filters: filters(cmd),
						Duration: duration,
						Status:   e.stderr}, output.logger(e))
			}
			// What can be read of a damaged recording is judged all the same.
			var damaged recording.Damaged
			if err != nil && (len(d.Findings) == 0 || !errors.As(err, &damaged)) {
				return err
			}
			told := app.TellDiagnosis(e.stdout, writing, form, d, page, exitCode)
			if err != nil && (told == nil || errors.Is(told, listing.ErrWarned)) {
				return err
			}
			return told
		},
	}
	watch.add(cmd)
	flags := cmd.Flags()
	watch.rate, flags.Lookup("rate").DefValue = collect.DiagnoseRate,
		strconv.Itoa(collect.DiagnoseRate)
	flags.StringVarP(&form, "output", "o", "text", strings.Join(app.DiagnosisForms(), ", "))
	flags.DurationVar(&duration, "duration", 30*time.Second, "how long to watch")
	flags.StringVar(&report, "report", "", "file that gets the report as one HTML page")
	flags.StringVar(&read, "read", "",
		"file of a trace's records to judge instead; - for standard input")
	flags.BoolVar(&exitCode, "exit-code", false, "exit with 4 when a cause was found")
	flags.StringVar(&output.time, "time", "local", "times: local, utc or relative")
	flags.BoolVar(&output.noColor, "no-color", false,
		"no colours, as with NO_COLOR or when not on a terminal")
	flags.StringVar(&output.logLevel, "log-level", "warn",
		"debug, info, warn or error, to standard error")
	output.changed = flags.Changed
	complete(cmd, "output", app.DiagnosisForms()...)
	complete(cmd, "time", cli.Clocks()...)
	complete(cmd, "log-level", "debug", "info", "warn", "error")
	complete(cmd, "duration")
	return cmd
}

// readDiagnosis judges records of another time. It needs no privileges.
func readDiagnosis(cmd *cobra.Command, e env, read string, watch *watchFlags, output *outputFlags,
	page *app.Report) (d event.Diagnosis, err error) {
	allowed := append([]string{"report", "exit-code"}, ofRecords...)
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if err == nil && !slices.Contains(allowed, f.Name) {
			err = usage("--%s does not go with --read: records of another time cannot answer it", f.Name)
		}
	})
	if err != nil {
		return d, err
	}
	filter, err := recording.OfRecords(watch.selection)
	if err != nil {
		return d, err
	}
	from := e.stdin
	if read != "-" {
		file, err := recording.OpenRecords(read)
		if err != nil {
			return d, err
		}
		defer file.Close()
		from = file
	}
	if err := page.Spare(from); err != nil {
		return d, err
	}
	return app.DiagnoseRecords(cmd.Context(), from,
		recording.ReplayOptions{Filter: filter, Filters: filters(cmd), Status: e.stderr,
			Program: e.program()}, output.logger(e))
}
