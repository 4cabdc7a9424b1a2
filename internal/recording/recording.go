// SPDX-License-Identifier: Apache-2.0

// Package recording keeps records in a file, and reads them again.
package recording

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/render"
)

// Recording is a file that keeps the JSON records of a run. The nil Recording
// keeps nothing.
type Recording struct {
	file   *cli.OutFile
	stream render.Stream
	both   *both
}

// CreateRecording opens the file of a --write. An error wraps ErrUsage.
func CreateRecording(path string) (*Recording, error) {
	if path == "-" {
		return nil, cli.Usage(
			"--write -: standard output is for the screen\nuse -o json instead")
	}
	file, err := cli.OpenOut(path)
	if err != nil {
		return nil, cli.Usage("--write: %w", err)
	}
	return &Recording{file: file,
		stream: render.NewStream(file, render.Options{Format: render.FormatJSON})}, nil
}

// is reports whether the records go to the file that they would come from.
func (r *Recording) is(from io.Reader) bool {
	return r != nil && r.file.Is(from)
}

// Apart refuses a file that the screen goes to as well: an error wraps ErrUsage.
func (r *Recording) Apart(screen io.Writer) error {
	if r != nil && r.file.SharesWith(screen) {
		return errors.Join(cli.Usage("--write and standard output are the same file\nuse -o json instead"), r.Close())
	}
	return nil
}

// Alongside returns a stream that also keeps what it is given. An error of either
// side ends the context, so that the run ends, and its summary goes to the other.
func (r *Recording) Alongside(ctx context.Context, screen render.Stream) (context.Context,
	render.Stream) {
	if r == nil {
		return ctx, screen
	}
	ctx, stop := context.WithCancel(ctx)
	r.both = &both{screen: screen, file: r.stream, stop: stop}
	r.both.fileErr = r.file.Begin()
	return ctx, r.both
}

// Close returns what went wrong on either side.
func (r *Recording) Close() error {
	if r == nil {
		return nil
	}
	err := r.file.Close()
	var screenErr error
	if r.both != nil {
		r.both.stop()
		screenErr = cli.IgnoreClosedPipe(r.both.screenErr)
		err = errors.Join(r.both.fileErr, err)
	}
	if err != nil {
		err = fmt.Errorf("keep records: %w", withPath(err, r.file.Name()))
	}
	return errors.Join(screenErr, err)
}

// withPath names the file where the error does not.
func withPath(err error, path string) error {
	if errors.As(err, new(*fs.PathError)) {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}

// both writes to the screen and to a file. Neither keeps the other from its
// summary: the run ends when one fails.
type both struct {
	screen, file       render.Stream
	screenErr, fileErr error
	stop               func()
}

// each does the same on both sides, unless one has failed. What went wrong is told
// when the recording is closed.
func (b *both) each(write func(render.Stream) error) error {
	if b.screenErr == nil {
		b.screenErr = write(b.screen)
	}
	if b.fileErr == nil {
		b.fileErr = write(b.file)
	}
	if b.screenErr != nil || b.fileErr != nil {
		b.stop()
	}
	return nil
}

func (b *both) Ready(r event.Ready) error {
	return b.each(func(s render.Stream) error { return s.Ready(r) })
}

func (b *both) Drop(d *event.Drop) error {
	return b.each(func(s render.Stream) error { return s.Drop(d) })
}

func (b *both) Suppressed(h event.Suppressed) error {
	return b.each(func(s render.Stream) error { return s.Suppressed(h) })
}

func (b *both) Summary(sum event.Summary) error {
	return b.each(func(s render.Stream) error { return s.Summary(sum) })
}

func (b *both) Flush() error {
	return b.each(func(s render.Stream) error { return s.Flush() })
}
