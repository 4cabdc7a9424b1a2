// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/synspy/synspy/internal/event"
)

// The encoder of drop records. encoding/json takes several times as long and
// allocates for every text it marshals (BenchmarkDropJSON has both), which a
// flood on a slow machine cannot afford. TestDropJSON holds the two together on
// random records that fill every field of the types, so a field added there and
// not here fails it.

func (s *jsonStream) appendDrop(b []byte, d *event.Drop) []byte {
	h := d.Header
	head(&h, "drop")
	b = strconv.AppendInt(append(b, `{"v":`...), int64(h.V), 10)
	b = appendString(append(b, `,"type":`...), h.Type)
	if !d.Time.IsZero() {
		b = append(b, `,"time":"`...)
		b = s.time.append(b, d.Time.Time)
		b = append(b, '"')
	}
	if !d.Cause.IsZero() {
		b = appendName(b, `,"cause":"`, d.Cause.String())
	}
	if !d.Stage.IsZero() {
		b = appendName(b, `,"stage":"`, d.Stage.String())
	}
	if !d.Action.IsZero() {
		b = appendName(b, `,"action":"`, d.Action.String())
	}
	if !d.Proof.IsZero() {
		b = appendName(b, `,"proof":"`, d.Proof.String())
	}
	if !d.Kernel.IsZero() {
		b = appendKernel(append(b, `,"kernel":{`...), &d.Kernel)
	}
	if d.Client != nil {
		b = appendPeer(append(b, `,"client":`...), d.Client)
	}
	if d.Server != nil {
		b = appendPeer(append(b, `,"server":`...), d.Server)
	}
	if d.Attempt != 0 {
		b = strconv.AppendUint(append(b, `,"attempt":`...), uint64(d.Attempt), 10)
	}
	if d.NetNS != 0 {
		b = strconv.AppendUint(append(b, `,"netns":`...), d.NetNS, 10)
	}
	if d.Device != nil {
		b = appendDevice(append(b, `,"device":{`...), d.Device)
	}
	if d.Connection != nil {
		b = appendConnection(append(b, `,"connection":{`...), d.Connection)
	}
	if d.Listener != nil {
		b = appendListener(append(b, `,"listener":`...), d.Listener)
	}
	b = appendProcesses(b, d.Processes)
	b = appendPlace(b, d.Cgroup, d.Container, d.Pod)
	b = appendText(b, `,"client_sees":`, d.ClientSees)
	if d.Unsent {
		b = append(b, `,"unsent":true`...)
	}
	return append(b, '}')
}

// appendKernel writes the rest of the object.
func appendKernel(b []byte, k *event.Kernel) []byte {
	empty := len(b)
	b = appendText(b, `,"function":`, k.Function)
	for i, c := range k.Counters {
		if i == 0 {
			b = append(b, `,"counters":[`...)
		} else {
			b = append(b, ',')
		}
		b = appendString(b, c)
	}
	if len(k.Counters) > 0 {
		b = append(b, ']')
	}
	b = appendText(b, `,"reason":`, k.Reason)
	b = appendText(b, `,"hook":`, k.Hook)
	b = appendText(b, `,"family":`, k.Family)
	b = appendText(b, `,"refusal":`, k.Refusal)
	return closeObject(b, empty)
}

func appendDevice(b []byte, d *event.Device) []byte {
	empty := len(b)
	if d.Index != 0 {
		b = strconv.AppendUint(append(b, `,"index":`...), uint64(d.Index), 10)
	}
	b = appendText(b, `,"name":`, d.Name)
	return closeObject(b, empty)
}

func appendConnection(b []byte, c *event.Connection) []byte {
	empty := len(b)
	b = appendText(b, `,"state":`, c.State)
	if c.Inode != 0 {
		b = strconv.AppendUint(append(b, `,"inode":`...), c.Inode, 10)
	}
	return closeObject(b, empty)
}

func appendPeer(b []byte, e *event.Endpoint) []byte {
	b = appendAddr(append(b, '{'), e.Addr)
	b = strconv.AppendUint(append(b, `"port":`...), uint64(e.Port), 10)
	return append(b, '}')
}

func appendListener(b []byte, l *event.Listener) []byte {
	b = appendAddr(append(b, '{'), l.Addr)
	b = strconv.AppendUint(append(b, `"port":`...), uint64(l.Port), 10)
	if l.Cookie != 0 {
		b = strconv.AppendUint(append(b, `,"cookie":"`...), l.Cookie, 10)
		b = append(b, '"')
	}
	if l.Inode != 0 {
		b = strconv.AppendUint(append(b, `,"inode":`...), l.Inode, 10)
	}
	if l.NetNS != 0 {
		b = strconv.AppendUint(append(b, `,"netns":`...), l.NetNS, 10)
	}
	if !l.Proof.IsZero() {
		b = appendName(b, `,"proof":"`, l.Proof.String())
	}
	if q := l.AcceptQueue; q != nil {
		b = strconv.AppendUint(append(b, `,"accept_queue":{"len":`...), uint64(q.Len), 10)
		b = strconv.AppendUint(append(b, `,"limit":`...), uint64(q.Limit), 10)
		b = append(b, '}')
	}
	if q := l.SynQueue; q != nil {
		b = strconv.AppendUint(append(b, `,"syn_queue":{"len":`...), uint64(q.Len), 10)
		b = strconv.AppendUint(append(b, `,"young":`...), uint64(q.Young), 10)
		b = strconv.AppendUint(append(b, `,"limit":`...), uint64(q.Limit), 10)
		b = append(b, '}')
	}
	if r := l.Reuseport; r != nil {
		b = strconv.AppendUint(append(b, `,"reuseport":{"members":`...), uint64(r.Members), 10)
		b = strconv.AppendUint(append(b, `,"full":`...), uint64(r.Full), 10)
		b = append(b, '}')
	}
	return append(appendPlace(b, l.Cgroup, nil, nil), '}')
}

func appendProcesses(b []byte, list []event.Process) []byte {
	for i := range list {
		if i == 0 {
			b = append(b, `,"processes":[`...)
		} else {
			b = append(b, ',')
		}
		b = appendProcess(b, &list[i])
	}
	if len(list) > 0 {
		b = append(b, ']')
	}
	return b
}

func appendProcess(b []byte, p *event.Process) []byte {
	b = strconv.AppendUint(append(b, `{"pid":`...), uint64(p.PID), 10)
	b = appendText(b, `,"comm":`, p.Comm)
	b = appendText(b, `,"role":`, string(p.Role))
	if p.LastAcceptMs != nil {
		b = strconv.AppendUint(append(b, `,"last_accept_ms":`...), *p.LastAcceptMs, 10)
	}
	if p.Program != nil {
		b = appendProgram(append(b, `,"program":{`...), p.Program)
	}
	b = appendPlace(b, p.Cgroup, p.Container, p.Pod)
	if p.ThreadCount != 0 || len(p.Threads) > 0 || p.CPU != nil || !p.SampledAt.IsZero() {
		b = appendSample(b, p)
	}
	return append(b, '}')
}

func appendProgram(b []byte, p *event.Software) []byte {
	empty := len(b)
	b = appendText(b, `,"name":`, p.Name)
	b = appendText(b, `,"script":`, p.Script)
	b = appendText(b, `,"title":`, p.Title)
	b = appendText(b, `,"language":`, p.Language)
	return closeObject(b, empty)
}

// appendSample writes the members of a sampling. Once a second and listener at
// most, encoding/json is fast enough.
func appendSample(b []byte, p *event.Process) []byte {
	var out bytes.Buffer
	err := WriteJSON(&out, struct {
		SampledAt   event.Time     `json:"sampled_at,omitzero"`
		ThreadCount int64          `json:"thread_count,omitempty"`
		Threads     []event.Thread `json:"threads,omitempty"`
		CPU         *event.CPU     `json:"cpu,omitempty"`
	}{p.SampledAt, p.ThreadCount, p.Threads, p.CPU})
	members := bytes.TrimSuffix(bytes.TrimPrefix(out.Bytes(), []byte("{")), []byte("}\n"))
	if err != nil || len(members) == 0 { // plain values: it does not fail
		return b
	}
	return append(append(b, ','), members...)
}

// appendPlace writes the members that say where something runs.
func appendPlace(b []byte, cg *event.Cgroup, c *event.Container, p *event.Pod) []byte {
	if cg != nil {
		b = append(b, `,"cgroup":{`...)
		empty := len(b)
		if cg.ID != 0 {
			b = strconv.AppendUint(append(b, `,"id":`...), cg.ID, 10)
		}
		b = appendText(b, `,"path":`, cg.Path)
		b = closeObject(b, empty)
	}
	if c != nil {
		b = append(b, `,"container":{`...)
		empty := len(b)
		b = appendText(b, `,"id":`, c.ID)
		b = appendText(b, `,"name":`, c.Name)
		b = appendText(b, `,"runtime":`, c.Runtime)
		b = closeObject(b, empty)
	}
	if p != nil {
		b = append(b, `,"pod":{`...)
		empty := len(b)
		b = appendText(b, `,"namespace":`, p.Namespace)
		b = appendText(b, `,"name":`, p.Name)
		b = appendText(b, `,"container":`, p.Container)
		b = appendText(b, `,"uid":`, p.UID)
		b = closeObject(b, empty)
	}
	return b
}

// closeObject ends an object whose members, if any, begin at start and were
// all written with a comma before them.
func closeObject(b []byte, start int) []byte {
	if len(b) > start {
		b = append(b[:start], b[start+1:]...)
	}
	return append(b, '}')
}

// appendText writes a member that is absent where it is empty.
func appendText(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return appendString(append(b, key...), value)
}

// appendName writes a member whose key ends in the opening quote and whose
// value is one of our own names.
func appendName(b []byte, key, name string) []byte {
	b = append(b, key...)
	b = append(b, name...)
	return append(b, '"')
}

// appendAddr writes the first member of an object, and the comma after it; an
// unknown address is absent.
func appendAddr(b []byte, a netip.Addr) []byte {
	switch {
	case !a.IsValid():
		return b
	case a.Zone() != "":
		return append(appendString(append(b, `"addr":`...), a.String()), ',')
	}
	b = a.AppendTo(append(b, `"addr":"`...))
	return append(b, '"', ',')
}

// appendString writes a string as encoding/json does, and escapes hidden
// characters too. What is no UTF-8 becomes \ufffd, and so does a U+FFFD: a record
// that is read and written again is the same.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	done := 0
	for i := 0; i < len(s); {
		c := s[i]
		if 0x20 <= c && c <= 0x7e && c != '"' && c != '\\' {
			i++
			continue
		}
		r, n := rune(c), 1
		if c >= utf8.RuneSelf {
			if r, n = utf8.DecodeRuneInString(s[i:]); !hidden(r) &&
				r != utf8.RuneError {
				i += n
				continue
			}
		}
		b = append(b, s[done:i]...)
		i += n
		done = i
		switch r {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = appendEscape(b, r)
		}
	}
	b = append(b, s[done:]...)
	return append(b, '"')
}

// clockCache writes times in the form of event.Time. Records come many to a
// second, so all but the fraction is formatted once.
type clockCache struct {
	second int64
	text   []byte
}

func (c *clockCache) append(b []byte, t time.Time) []byte {
	if s := t.Unix(); s != c.second || c.text == nil {
		c.second = s
		c.text = t.UTC().AppendFormat(c.text[:0], "2006-01-02T15:04:05.")
	}
	b = append(b, c.text...)
	return append(appendFraction(b, t.Nanosecond()), 'Z')
}

// appendFraction writes nanoseconds as nine digits.
func appendFraction(b []byte, ns int) []byte {
	for div := 100_000_000; div > 0; div /= 10 {
		b = append(b, byte('0'+ns/div%10))
	}
	return b
}
