// SPDX-License-Identifier: Apache-2.0

// Package network looks at what is around the listeners: where packets died before one, which
// programs, rules and diversions they met, what was forwarded, and in which network namespaces.
package network

import (
	"cmp"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/kernel"
)

// maxSpaces bounds the network namespaces that are entered.
const maxSpaces = 64

// Places are the network namespaces of this machine, and what was read in them. It is for one
// goroutine at a time.
type Places struct {
	Own    uint64 // synspy's own
	spaces []kernel.NetNS
	known  map[uint64]*Space
	log    *slog.Logger
}

// Space is a network namespace, with what was read there.
type Space struct {
	Enter   evidence.Enter
	Devices map[uint32]kernel.Device // by index
	paths   []string
	addrs   []net.Addr // on its devices; nil where they could not be read
	sysctls map[string]string
}

// NewPlaces lists the network namespaces there are.
func NewPlaces(log *slog.Logger) *Places {
	p := &Places{known: make(map[uint64]*Space), log: log}
	var err error
	if p.Own, err = kernel.OwnNetNS(); err != nil {
		log.Debug("read own network namespace", "error", err)
	}
	if p.spaces, _, err = kernel.NetNamespaces("/proc"); err != nil {
		log.Debug("list network namespaces", "error", err)
	}
	return p
}

// Space reads a namespace's devices and addresses; nil where too many were read.
func (p *Places) Space(inode uint64) *Space {
	if s := p.known[inode]; s != nil {
		return s
	}
	if len(p.known) >= maxSpaces {
		return nil
	}
	s := &Space{Devices: make(map[uint32]kernel.Device), sysctls: make(map[string]string)}
	p.known[inode] = s
	if inode == p.Own {
		s.paths = []string{""}
	} else {
		s.Enter, s.paths = waysTo(inode, p.spaces)
	}
	p.Enter(inode, func() error {
		list, err := kernel.Devices()
		for _, d := range list {
			s.Devices[d.Index] = d
		}
		var unread error
		s.addrs, unread = net.InterfaceAddrs()
		return errors.Join(err, unread)
	})
	return s
}

// Enter runs f in a namespace, if there is a way in.
func (p *Places) Enter(inode uint64, f func() error) {
	s := p.Space(inode)
	if s == nil {
		return
	}
	err := errNoWay
	for _, path := range s.paths {
		if err = kernel.InNetNS(path, inode, f); err == nil {
			return
		}
	}
	p.log.Debug("look into a network namespace", "netns", inode, "error", err)
}

var errNoWay = errors.New("no way into it was found")

// hasAddr reports whether one of the namespace's devices has the address.
func (s *Space) hasAddr(addr netip.Addr) bool {
	return slices.ContainsFunc(s.addrs, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap() == addr.Unmap()
	})
}

// sysctl reads a setting of the namespace, or, of the whole host, of the first one.
func (p *Places) sysctl(inode uint64, s *Space, name string, host bool) string {
	if _, known := s.sysctls[name]; !known && host {
		s.sysctls[name] = readSysctl(name)
	} else if !known {
		p.Enter(inode, func() error {
			s.sysctls[name] = readSysctl(name)
			return nil
		})
	}
	return s.sysctls[name]
}

// readSysctl reads a setting of the calling thread's network namespace, or, where only the first
// one has it, of that; empty where it cannot be read.
func readSysctl(name string) string {
	parts := strings.Split(name, ".")
	for i := range parts {
		parts[i] = strings.ReplaceAll(parts[i], "/", ".") // sysctl's way of writing a dot
	}
	text, err := os.ReadFile(filepath.Join("/proc/sys", filepath.Join(parts...)))
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(text)), " ")
}

// waysTo lists how a namespace can be entered; nothing where it is not among those known.
func waysTo(inode uint64, known []kernel.NetNS) (enter evidence.Enter, paths []string) {
	i := slices.IndexFunc(known, func(ns kernel.NetNS) bool { return ns.Inode == inode })
	if i < 0 {
		return evidence.Enter{}, nil
	}
	return waysInto(&known[i])
}

// waysInto lists how a namespace can be entered.
func waysInto(ns *kernel.NetNS) (enter evidence.Enter, paths []string) {
	for _, name := range ns.Names {
		enter.Name = cmp.Or(enter.Name, name)
		paths = append(paths, kernel.NamedNetNS(name))
	}
	for _, pid := range ns.Through {
		enter.PID = cmp.Or(enter.PID, pid)
		paths = append(paths, kernel.ProcessNetNS(pid))
	}
	if len(ns.Through) == 1 && ns.Through[0] == uint32(os.Getpid()) && enter.Name == "" {
		enter.PID = 0 // which ends with synspy
	}
	return enter, paths
}
