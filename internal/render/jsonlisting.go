// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"strconv"

	"github.com/synspy/synspy/internal/event"
)

// appendListing is the encoder of listeners, for machines that have a hundred thousand, as
// appendDrop is that of drops; TestListingJSON compares it.
func (s *jsonStream) appendListing(b []byte, l *event.Listing) []byte {
	h := l.Header
	head(&h, "listener")
	b = strconv.AppendInt(append(b, `{"v":`...), int64(h.V), 10)
	b = appendString(append(b, `,"type":`...), h.Type)
	if !l.Time.IsZero() {
		b = append(b, `,"time":"`...)
		b = s.time.append(b, l.Time.Time)
		b = append(b, '"')
	}
	b = appendListener(append(b, `,"listener":`...), &l.Listener)
	b = appendText(b, `,"netns_name":`, l.NetNS)
	if l.V6Only != nil {
		b = strconv.AppendBool(append(b, `,"v6only":`...), *l.V6Only)
	}
	if l.MPTCP {
		b = append(b, `,"mptcp":true`...)
	}
	if k := l.Backlog; k != nil {
		b = strconv.AppendUint(append(b, `,"backlog":{"limit":`...), uint64(k.Limit), 10)
		if k.Somaxconn != nil {
			b = strconv.AppendUint(append(b, `,"somaxconn":`...), uint64(*k.Somaxconn), 10)
		}
		b = append(appendText(b, `,"by":`, k.By), '}')
	}
	if d := l.Drops; d != nil {
		b = strconv.AppendUint(append(b, `,"drops":{"count":`...), d.Count, 10)
		b = append(strconv.AppendBool(append(b, `,"approximate":`...), d.Approximate), '}')
	}
	if l.Rates != nil {
		b = appendAny(append(b, `,"rates":`...), l.Rates)
	}
	b = appendProcesses(b, l.Processes)
	b = strconv.AppendBool(append(b, `,"owners_known":`...), l.OwnersKnown)
	b = appendPlace(b, l.Cgroup, l.Container, l.Pod)
	if len(l.Warnings) == 0 {
		return append(b, `,"warnings":[]}`...)
	}
	return append(appendAny(append(b, `,"warnings":`...), l.Warnings), '}')
}

// appendAny writes a plain value as encoding/json does: where there are few, that is fast enough.
func appendAny(b []byte, v any) []byte {
	var out bytes.Buffer
	if err := WriteJSON(&out, v); err != nil { // plain values: it does not fail
		return append(b, "null"...)
	}
	return append(b, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...)
}
