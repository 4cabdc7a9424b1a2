// SPDX-License-Identifier: Apache-2.0

package canary

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/synspy/synspy/internal/event"
)

// Network narrows the addresses of a name: "ip", "ip4" or "ip6".
type Network string

// Target is where to connect to. It is for one goroutine at a time.
type Target struct {
	Name string // as it was given
	host string
	port uint16
	addr netip.Addr // once resolved
}

// ParseTarget reads HOST:PORT, [IPV6]:PORT, or HOST:SERVICE.
func ParseTarget(text string) (*Target, error) {
	host, service, err := net.SplitHostPort(text)
	if err != nil {
		return nil, fmt.Errorf("%q: want HOST:PORT, an IPv6 address in brackets", text)
	}
	port, err := net.LookupPort("tcp", service)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("%q: %q is no port", text, service)
	}
	if host == "" {
		return nil, fmt.Errorf("%q: want a host before the port", text)
	}
	t := &Target{Name: text, host: host, port: uint16(port)}
	if addr, err := netip.ParseAddr(host); err == nil {
		t.addr = addr.Unmap()
	} else if _, err := strconv.ParseFloat(host, 64); err == nil {
		return nil, fmt.Errorf("%q: %q is neither a name nor an address", text, host)
	}
	return t, nil
}

// Fits reports whether a literal address is of the network; a name may have one of each.
func (t *Target) Fits(network Network) bool {
	return !t.addr.IsValid() || network == "ip" || t.addr.Is4() == (network == "ip4")
}

// Resolve finds the address, once: the time that DNS takes is no part of a connect,
// and all probes are to measure one server, as ping and hping do. Where it
// fails, the next call asks again. Errors are those of the resolver.
func (t *Target) Resolve(ctx context.Context, network Network) (netip.AddrPort, error) {
	if t.addr.IsValid() {
		return netip.AddrPortFrom(t.addr, t.port), nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, string(network), t.host)
	if err == nil && len(addrs) == 0 {
		err = errors.New("no address")
	}
	if err != nil {
		return netip.AddrPort{}, err
	}
	t.addr = addrs[0].Unmap() // they come in the order of RFC 6724
	return netip.AddrPortFrom(t.addr, t.port), nil
}

// Unresolved is the record of a probe that found no address.
func Unresolved(err error) event.Canary {
	r := event.Canary{Header: event.Head("canary"), Outcome: event.CanaryUnresolved,
		Error: err.Error()}
	r.Note = note(r)
	return r
}
