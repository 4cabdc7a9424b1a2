// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"bytes"
	"context"
	"os"
)

const vdsoName = "[vdso]"

// maxVDSO bounds its size; it is two or three pages.
const maxVDSO = 1 << 20

// vdso names an address in a process's vDSO by our own, which is the same image: the kernel
// has one for each kind of process, and another kind's would have another size.
func vdso(ctx context.Context, m *mapping, address uint64) (place, uint64) {
	offset := address - m.start
	image, err := ownVDSO()
	if err != nil || uint64(len(image)) != m.end-m.start {
		return place{}, offset
	}
	found, err := lookUp(ctx, bytes.NewReader(image), []uint64{offset})
	if err != nil {
		return place{}, offset
	}
	return found[offset].place, offset
}

func ownVDSO() ([]byte, error) {
	file, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	mappings, err := parseMaps(file)
	if err != nil {
		return nil, err
	}
	for _, m := range mappings {
		if m.path != vdsoName || m.end-m.start > maxVDSO {
			continue
		}
		memory, err := os.Open("/proc/self/mem")
		if err != nil {
			return nil, err
		}
		defer memory.Close()
		image := make([]byte, m.end-m.start)
		_, err = memory.ReadAt(image, int64(m.start))
		return image, err
	}
	return nil, os.ErrNotExist
}
