// SPDX-License-Identifier: Apache-2.0

package app

import (
	"errors"
	"fmt"
	"io"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/render"
)

// Report is the file of a --report. The nil Report is none.
type Report struct{ file *cli.OutFile }

// OpenReport opens it, before anything is watched for it. An error wraps ErrUsage.
func OpenReport(path string) (*Report, error) {
	if path == "-" {
		return nil, cli.Usage(
			"--report -: standard output is for the screen\nuse -o html instead")
	}
	file, err := cli.OpenOut(path)
	if err != nil {
		return nil, cli.Usage("--report: %w", err)
	}
	return &Report{file}, nil
}

// Close ends a report; one that was not written leaves nothing.
func (r *Report) Close() error {
	if r == nil {
		return nil
	}
	return r.file.Close()
}

// Spare refuses a report in the place of the records that it would be of: an error wraps ErrUsage.
func (r *Report) Spare(from io.Reader) error {
	if r != nil && r.file.Is(from) {
		return cli.Usage("--read and --report name the same file")
	}
	return nil
}

// Apart refuses a report in the file that the screen goes to as well: an error wraps ErrUsage.
func (r *Report) Apart(screen io.Writer) error {
	if r != nil && r.file.SharesWith(screen) {
		return cli.Usage(
			"--report and standard output are the same file\nuse -o html instead")
	}
	return nil
}

func (r *Report) write(d event.Diagnosis) error {
	if r == nil {
		return nil
	}
	if err := errors.Join(r.file.Begin(), render.Report(r.file, d)); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
