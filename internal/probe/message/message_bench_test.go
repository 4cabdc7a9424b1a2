// SPDX-License-Identifier: Apache-2.0

package message

import (
	"testing"
	"unsafe"

	"github.com/synspy/synspy/internal/bpf"
)

// BenchmarkDecode is what a record in the ring buffer takes to become a message.
func BenchmarkDecode(b *testing.B) {
	raw := bpf.SynspyRecord{Kind: uint8(KindRecord), Family: 2, Outcome: 1, Attempt: 1,
		ClientPort: 40000, ServerPort: 80}
	raw.Client[10], raw.Client[11], raw.Server[10], raw.Server[11] = 0xff, 0xff, 0xff, 0xff
	raw.Listener.Id, raw.Listener.Family = 1, 2
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(&raw)), unsafe.Sizeof(raw))
	var m Message
	b.ReportAllocs()
	for b.Loop() {
		if !m.Decode(bytes) {
			b.Fatal("refused")
		}
	}
}
