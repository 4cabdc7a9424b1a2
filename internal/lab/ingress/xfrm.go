// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// playXFRM wants IPsec for one of two ports, as `ip xfrm policy add dir in ...
// tmpl proto esp mode transport` does.
func playXFRM(f world.Family) scenario.PlayFunc {
	bound, s := f.Listener, f.Server
	const open = world.Port + 1
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		var none scenario.Expectation
		if err := requireIPsec(w, s); err != nil {
			return none, err
		}
		process, err := server.Start(w, server.Config{Listeners: []server.ListenConfig{
			{Addr: bound, Backlog: world.Backlog}, {Addr: world.At(bound, open),
				Backlog: world.Backlog},
		}})
		if err != nil {
			return none, err
		}
		dead, answered, err := refused(ctx, w, s, world.At(s, open), "XfrmInTmplMismatch")
		if err != nil {
			return none, err
		}
		log("%d SYNs in the clear met a policy that wants ESP; %d to the next port were answered", len(dead), len(answered))
		return policy(dead, bound, process), nil
	}
}

// requireIPsec adds an input policy for TCP to that address and port with an ESP
// template. No security association exists, so nothing can ever satisfy it. The
// error wraps ErrCannotHold where the kernel has no XFRM.
func requireIPsec(w *world.World, server netip.AddrPort) error {
	const newPolicy = 0x13 // XFRM_MSG_NEWPOLICY
	err := w.Do(func() error {
		conn, err := netlink.Dial(unix.NETLINK_XFRM, nil) // of this thread's namespace
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Execute(netlink.Message{
			Header: netlink.Header{Type: newPolicy,
				Flags: netlink.Request | netlink.Acknowledge | netlink.Create},
			Data: xfrmPolicy(server),
		})
		return err
	})
	if err == nil {
		return nil
	}
	if world.Missing(err) {
		return fmt.Errorf("%w: it needs XFRM (CONFIG_XFRM_USER, module xfrm_user): %w",
			world.ErrCannotHold, err)
	}
	return fmt.Errorf("add XFRM policy: %w", err)
}

// xfrmPolicy is a struct xfrm_userpolicy_info of linux/xfrm.h, and an attribute
// XFRMA_TMPL with one struct xfrm_user_tmpl.
func xfrmPolicy(server netip.AddrPort) []byte {
	const (
		attributeTemplate = 5 // XFRMA_TMPL
		lengthTemplate    = 64
	)
	family, bits := byte(unix.AF_INET), byte(32)
	if server.Addr().Is6() {
		family, bits = unix.AF_INET6, 128
	}
	native := binary.NativeEndian

	policy := make([]byte, 168)
	copy(policy[0:], server.Addr().AsSlice())              // sel.daddr
	binary.BigEndian.PutUint16(policy[32:], server.Port()) // sel.dport
	binary.BigEndian.PutUint16(policy[34:], 0xffff)        // sel.dport_mask
	native.PutUint16(policy[40:], uint16(family))          // sel.family
	policy[42] = bits                                      // sel.prefixlen_d
	policy[44] = unix.IPPROTO_TCP                          // sel.proto
	for i := range 4 {
		native.PutUint64(policy[56+8*i:], ^uint64(0)) // lft: XFRM_INF bytes and packets
	}
	// Priority and index 0, direction XFRM_POLICY_IN and action
	// XFRM_POLICY_ALLOW are all zero.

	template := make([]byte, lengthTemplate)
	template[20] = unix.IPPROTO_ESP                 // id.proto
	native.PutUint16(template[24:], uint16(family)) // family
	for i := range 3 {
		native.PutUint32(template[52+4*i:], ^uint32(0)) // any algorithms
	}
	attribute := make([]byte, 4)
	native.PutUint16(attribute, 4+lengthTemplate)
	native.PutUint16(attribute[2:], attributeTemplate)
	return slices.Concat(policy, attribute, template)
}
