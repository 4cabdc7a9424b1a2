// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// Conntrack is the state of a namespace's connection tracking: its table, and what it counted since
// the namespace began.
type Conntrack struct {
	Count, Max   uint32 // entries, and how many there may be
	Buckets      uint32 // of the hash table, which all namespaces share; 0 where it is not shown
	Drops        uint64 // packets that it dropped itself: nf_conntrack_count was at the limit, or an entry could not be inserted
	EarlyDrops   uint64 // entries that it threw out to make room
	InsertFailed uint64
	Invalid      uint64 // packets that fit no connection
}

// ConntrackHere reads it in the calling thread's network namespace; false where the kernel has
// none, or does not show it.
func ConntrackHere() (c Conntrack, ok bool) {
	count := sysctlNumber("/proc/sys/net/netfilter/nf_conntrack_count")
	limit := sysctlNumber("/proc/sys/net/netfilter/nf_conntrack_max")
	if count == nil || limit == nil {
		return c, false
	}
	c.Count, c.Max = *count, *limit
	if buckets := sysctlNumber("/proc/sys/net/netfilter/nf_conntrack_buckets"); buckets != nil {
		c.Buckets = *buckets
	}
	text, err := os.ReadFile("/proc/thread-self/net/stat/nf_conntrack")
	if err != nil {
		return c, false
	}
	c.add(text)
	return c, true
}

// add sums up the rows of /proc/net/stat/nf_conntrack, one a CPU, below their names.
func (c *Conntrack) add(text []byte) {
	var names []string
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if names == nil {
			names = fields
			continue
		}
		for i, f := range fields[:min(len(fields), len(names))] {
			n, err := strconv.ParseUint(f, 16, 64)
			if err != nil {
				continue
			}
			switch names[i] {
			case "drop":
				c.Drops += n
			case "early_drop":
				c.EarlyDrops += n
			case "insert_failed":
				c.InsertFailed += n
			case "invalid":
				c.Invalid += n
			}
		}
	}
}

// PacketQueue is a queue of netfilter's (NFQUEUE) that a program has opened.
type PacketQueue struct {
	Number  uint32
	PortID  uint32 // of its netlink socket: often the process's number
	Waiting uint64 // packets without a verdict
	Dropped uint64 // since it was opened: no room in the queue, or in the program's socket
}

// PacketQueuesHere lists those of the calling thread's network namespace.
func PacketQueuesHere() (list []PacketQueue) {
	text, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_queue")
	if err != nil {
		return nil
	}
	return packetQueues(text)
}

// packetQueues reads lines of: number, port ID, waiting, copy mode, copy range, dropped for want of
// room, dropped for a full socket, ...
func packetQueues(text []byte) (list []PacketQueue) {
	for line := range bytes.Lines(text) {
		var n [7]uint64
		fields := strings.Fields(string(line))
		if len(fields) < len(n) {
			continue
		}
		for i := range n {
			n[i], _ = strconv.ParseUint(fields[i], 10, 64)
		}
		list = append(list, PacketQueue{Number: uint32(n[0]), PortID: uint32(n[1]),
			Waiting: n[2], Dropped: n[5] + n[6]})
	}
	return list
}
