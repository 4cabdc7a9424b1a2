package app

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// outFile is a file that a run is to leave. What was in it is kept until there is something to
// write, and one that was made for nothing is removed: a run that is refused costs nothing.
type outFile struct {
	*os.File
	made, begun bool
}

func openOut(path string) (*outFile, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	made := err == nil
	if errors.Is(err, fs.ErrExist) {
		file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	}
	if err != nil {
		return nil, err
	}
	return &outFile{File: file, made: made}, nil
}

// begin empties it, if it is one that keeps what is written.
func (o *outFile) begin() error {
	o.begun = true
	info, err := o.Stat()
	if err == nil && info.Mode().IsRegular() {
		err = o.Truncate(0)
	}
	return err
}

func (o *outFile) close() error {
	if o.made && !o.begun {
		return errors.Join(o.Close(), os.Remove(o.Name()))
	}
	return o.Close()
}

// is tells whether what is written goes to the file that is read.
func (o *outFile) is(from io.Reader) bool {
	file, ok := from.(*os.File)
	if !ok {
		return false
	}
	a, err := file.Stat()
	if err != nil || !a.Mode().IsRegular() {
		return false
	}
	b, err := o.Stat()
	return err == nil && os.SameFile(a, b)
}
