// SPDX-License-Identifier: Apache-2.0

package kernel

import "testing"

func TestSymbolsAt(t *testing.T) {
	names := []string{"schedule", "tcp_conn_request", "tcp_v4_rcv"}
	code, err := CodeRanges(names...)
	if err != nil {
		t.Fatal(err)
	}
	var addresses []uint64
	for _, name := range names {
		if len(code[name]) == 0 {
			t.Fatalf("no code of %s", name)
		}
		for _, piece := range code[name] {
			addresses = append(addresses, piece.Start, piece.End-1, piece.Start) // one of them twice
		}
	}
	found, err := SymbolsAt(append(addresses, 0, 4096, 1<<64-1))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		for _, piece := range code[name] {
			if got := found[piece.Start]; got.Offset != 0 || got.Module != "" {
				t.Errorf("the start of %s is %+v", name, got)
			}
			if got := found[piece.End-1]; got.Offset != piece.End-1-piece.Start ||
				got.Name != found[piece.Start].Name {
				t.Errorf("the end of %s is %+v", name, got)
			}
		}
	}
	if got := found[code["tcp_v4_rcv"][0].Start]; got.Name != "tcp_v4_rcv" {
		t.Errorf("got %+v", got)
	}
	for _, address := range []uint64{0, 4096, 1<<64 - 1} {
		if got, ok := found[address]; ok {
			t.Errorf("%#x is %+v", address, got)
		}
	}
}
