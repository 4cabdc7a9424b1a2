// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bufio"
	"errors"
	"io"
	"unsafe"

	"github.com/synspy/synspy/internal/bpf"
)

// holdersBuffer is what the kernel gives at once: the buffer of an iterator has eight
// pages (bpf_seq_read).
const holdersBuffer = 32 << 10

// eachHolder decodes what the iterator over open files writes, one by one: with many
// listeners all of it together would be much of the memory that synspy ever takes. What
// f is given is overwritten by the next one.
func eachHolder(from io.Reader, f func(*bpf.SynspyHolder)) error {
	var h bpf.SynspyHolder
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&h)), unsafe.Sizeof(h))
	for buffered := bufio.NewReaderSize(from, holdersBuffer); ; {
		if _, err := io.ReadFull(buffered, raw); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err // of half a one, too
		}
		f(&h)
	}
}
