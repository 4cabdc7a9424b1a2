// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// EthernetHeader is how many bytes stand before the IP header.
const EthernetHeader = 14

// Ethernet is an Ethernet device through which packets come in. The answers to clients leave
// through the TUN device, where the clients are.
type Ethernet struct {
	name    string
	tap     *os.File
	Address []byte
}

// Ethernet makes one.
func (w *World) Ethernet(name string) (*Ethernet, error) {
	e := &Ethernet{name: name}
	return e, w.Do(func() (err error) {
		if e.tap, err = openTAP(name); err != nil {
			return err
		}
		w.Keep(e.tap)
		if err := WriteSysctl("net.ipv4.conf."+name+".rp_filter", "0"); err != nil {
			return err
		}
		if e.Address, err = hardwareAddress(name); err != nil {
			return err
		}
		return SetFlags(name, unix.IFF_UP, 0)
	})
}

// Send lets an IPv4 packet come in.
func (e *Ethernet) Send(packet []byte) error { return e.SendTo(e.Address, packet) }

// SendTo is send in a frame for that address.
func (e *Ethernet) SendTo(address, packet []byte) error {
	frame := append(append(make([]byte, 0, EthernetHeader+len(packet)), address...), 2, 0, 0, 0,
		0, 1, 0x08, 0x00) // from 02:..:01, IPv4
	if _, err := e.tap.Write(append(frame, packet...)); err != nil {
		return fmt.Errorf("write frame to %s: %w", e.name, err)
	}
	return nil
}
