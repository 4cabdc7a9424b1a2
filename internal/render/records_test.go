// SPDX-License-Identifier: Apache-2.0

package render

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"time"

	"github.com/synspy/synspy/internal/event"
)

var start = time.Date(2026, 11, 22, 4, 55, 1, 123456789, time.UTC)

// typical is the record of DESIGN 3.
func typical() *event.Drop {
	cg := &event.Cgroup{ID: 4242,
		Path: "/kubepods.slice/kubepods-pod1.slice/cri-containerd-0123.scope"}
	c := &event.Container{ID: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", Name: "app", Runtime: "containerd"}
	p := &event.Pod{Namespace: "prod", Name: "api-7f9c", Container: "app"}
	last := uint64(4900)
	return &event.Drop{
		Header: event.Head("drop"),
		Time:   event.Time{Time: start},
		Cause:  event.CauseAcceptQueueFull, Stage: event.StageSyn,
		Action: event.ActionDropped, Proof: event.ProofCounters,
		Kernel: event.Kernel{Function: "tcp_conn_request",
			Counters: []string{"ListenOverflows", "ListenDrops"}},
		Client:  &event.Endpoint{Addr: netip.MustParseAddr("10.0.0.7"), Port: 51234},
		Server:  &event.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"), Port: 443},
		Attempt: 2,
		Listener: &event.Listener{
			Addr: netip.MustParseAddr("0.0.0.0"), Port: 443, Cookie: 4711,
			Inode: 123456, NetNS: 4026531840,
			Proof: event.ProofSocket, AcceptQueue: &event.Queue{Len: 129, Limit: 128},
			SynQueue:  &event.SynQueue{Len: 3, Young: 1, Limit: 128},
			Reuseport: &event.Reuseport{Members: 8, Full: 1},
		},
		Processes: []event.Process{
			{PID: 812, Comm: "nginx", Role: event.RoleAcceptor, LastAcceptMs: &last,
				Cgroup: cg, Container: c, Pod: p},
			{PID: 811, Comm: "nginx", Role: event.RoleListener, Cgroup: cg,
				Container: c, Pod: p},
		},
		Cgroup: cg, Container: c, Pod: p, ClientSees: "timeout",
	}
}

// hostile are strings that a process, an image or an administrator of another
// namespace can choose.
var hostile = []string{
	"", "nginx", "\x1b[31mred\x1b[0m", "a\nb\tc\r\x00", "\x7f\x9b2J", "\xc2\x9b2J",
	"\xff\xfe\x80", "\xed\xa0\x80",
	"\u202egpj.exe", "zero\u200bwidth", "line\u2028para\u2029", "\ufeffbom", "tag\U000e0041", `"quoted\"`,
	"<script>&amp;</script>", "日本語のプロセス", "\ufffd", "soft\u00adhyphen", "🙂", "é", "\b\f",
	"{\"v\":1}",
}

// fill sets every exported field of v to something random, so that a field
// added to a record cannot be missed.
func fill(r *rand.Rand, v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *event.Time:
		x.Time = time.Unix(r.Int64N(8e9),
			r.Int64N(1e9)).In(time.FixedZone("", int(r.Int64N(7200))))
		return
	case *netip.Addr:
		*x = randomAddr(r)
		return
	case *event.Cause:
		*x = event.Cause(r.IntN(int(event.NumCauses) + 1))
		return
	case *event.Stage:
		*x = event.Stage(r.IntN(int(event.NumStages) + 1))
		return
	case *event.Action:
		*x = event.Action(r.IntN(int(event.NumActions) + 1))
		return
	case *event.Proof:
		*x = event.Proof(r.IntN(int(event.NumProofs) + 1))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i))
		}
	case reflect.Pointer:
		if r.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem())
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), r.IntN(4), 4))
		for i := range v.Len() {
			fill(r, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(4) {
			key := reflect.New(v.Type().Key()).Elem()
			value := reflect.New(v.Type().Elem()).Elem()
			fill(r, key)
			fill(r, value)
			v.SetMapIndex(key, value)
		}
	case reflect.Interface: // a value of event.Evidence
		v.Set(reflect.ValueOf([]any{r.Uint64(), r.Float64(), "text", true}[r.IntN(4)]))
	case reflect.String:
		s := hostile[r.IntN(len(hostile))]
		if r.IntN(2) == 0 {
			s += hostile[r.IntN(len(hostile))]
		}
		v.SetString(s)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if r.IntN(4) > 0 {
			v.SetUint(r.Uint64() >> r.IntN(64))
		}
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(r.Int64N(1 << 40))
	case reflect.Float64:
		v.SetFloat(r.Float64() * 1e6)
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	default:
		panic("fill: no idea of " + v.Type().String())
	}
}

func randomAddr(r *rand.Rand) netip.Addr {
	var b [16]byte
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	switch r.IntN(6) {
	case 0:
		return netip.Addr{}
	case 1:
		return netip.AddrFrom4([4]byte(b[:4]))
	case 2:
		return netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff, 12: b[0], 13: b[1], 14: b[2],
			15: b[3]})
	case 3:
		return netip.MustParseAddr("fe80::1").WithZone("eth0" +
			hostile[r.IntN(len(hostile))])
	case 4:
		return netip.IPv6Unspecified()
	default:
		return netip.AddrFrom16(b)
	}
}

func random[T any](seed uint64) *T {
	v := new(T)
	fill(rand.New(rand.NewPCG(seed, 1)), reflect.ValueOf(v).Elem())
	return v
}
