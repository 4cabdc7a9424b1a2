// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ethernetHeader is how many bytes stand before the IP header.
const ethernetHeader = 14

// ethernet is an Ethernet device through which packets come in. The answers to clients leave through the TUN
// device, where the clients are.
type ethernet struct {
	name    string
	tap     *os.File
	address []byte
}

// ethernet makes one.
func (w *World) ethernet(name string) (*ethernet, error) {
	e := &ethernet{name: name}
	return e, w.Do(func() (err error) {
		if e.tap, err = openTAP(name); err != nil {
			return err
		}
		w.keep(e.tap)
		if err := writeSysctl("net.ipv4.conf."+name+".rp_filter", "0"); err != nil {
			return err
		}
		if e.address, err = hardwareAddress(name); err != nil {
			return err
		}
		return setFlags(name, unix.IFF_UP, 0)
	})
}

// send lets an IPv4 packet come in.
func (e *ethernet) send(packet []byte) error { return e.sendTo(e.address, packet) }

// sendTo is send in a frame for that address.
func (e *ethernet) sendTo(address, packet []byte) error {
	frame := append(append(make([]byte, 0, ethernetHeader+len(packet)), address...), 2, 0, 0, 0, 0, 1, 0x08, 0x00) // from 02:..:01, IPv4
	if _, err := e.tap.Write(append(frame, packet...)); err != nil {
		return fmt.Errorf("write frame to %s: %w", e.name, err)
	}
	return nil
}
