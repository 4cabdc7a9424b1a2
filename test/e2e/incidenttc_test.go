// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/mdlayher/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/kernel/kerneltest"
	"github.com/synspy/synspy/internal/lab/server"
)

// TestIncidentTC: a tc program that drops SYNs is named where the kernel says that tc did it.
func TestIncidentTC(t *testing.T) {
	const (
		device          = "lab0" // the World's TUN device
		ingress, clsact = 0xfffffff2, 0xfffffff1
		fd, flags       = 6, 8 // TCA_BPF_FD, TCA_BPF_FLAGS
		directAction    = 1
	)
	w := newWorld(t)
	startServer(t, w, "innocent", server.ListenConfig{Addr: anyAddr(port), Backlog: 8})
	shot, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "drop_all", Type: ebpf.SchedCLS,
		License:      "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}}) // TC_ACT_SHOT
	must(t, err)
	defer shot.Close()
	must(t, w.Do(func() error {
		index, err := kerneltest.DeviceIndex(device)
		if err != nil {
			return err
		}
		if err := kerneltest.Request(unix.RTM_NEWQDISC,
			kerneltest.TCMessage(index, 0xffff0000, clsact,
				0), func(a *netlink.AttributeEncoder) {
				a.String(1, "clsact")
			}); err != nil {
			return err
		}
		return kerneltest.AddFilter(index, ingress, "bpf", 1,
			func(o *netlink.AttributeEncoder) {
				o.Uint32(fd, uint32(shot.FD()))
				o.Uint32(flags, directAction)
			})
	}))
	var clients errgroup.Group
	gone := make(chan struct{})
	clients.Go(func() error { // from before the window to after it
		for every := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-gone:
				every.Stop()
				return nil
			case <-every.C:
				if err := w.Client(server4).SYN(); err != nil {
					return err
				}
			}
		}
	})
	d := beginDiagnosis(t, "--netns", w.Path(), "--duration", "2s").end()
	close(gone)
	must(t, clients.Wait())
	if len(d.Findings) == 0 || d.Findings[0].ID != "other_drops" ||
		d.Findings[0].Severity != "cause" {
		t.Fatalf("want a cause, other_drops: %s", d)
	}
	f := d.Findings[0]
	named := strings.Contains(f.shown("tc ingress program on "+device), "drop_all")
	if reasoned := tellsTC(t); named != reasoned ||
		strings.Contains(d.Verdict, "a tc program") != reasoned {
		t.Errorf("named: %t; the kernel says what tc dropped: %t: %s", named, reasoned, d)
	}
}

// tellsTC reports whether the kernel has a drop reason of tc's.
func tellsTC(t *testing.T) bool {
	t.Helper()
	spec, err := btf.LoadKernelSpec()
	must(t, err)
	var reasons *btf.Enum
	if err := spec.TypeByName("skb_drop_reason", &reasons); err != nil {
		t.Logf("no drop reasons: %v", err)
		return false
	}
	for _, v := range reasons.Values {
		if v.Name == "SKB_DROP_REASON_TC_INGRESS" {
			return true
		}
	}
	return false
}
