// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// Place is where a program is attached in the kernel.
type Place struct {
	Kind string `json:"kind"` // fentry, fexit, tp_btf, kprobe or kretprobe
	At   string `json:"at"`   // the function's or the tracepoint's name
}

// Kinds of places that are no attach type.
const (
	kindKprobe    = "kprobe"
	kindKretprobe = "kretprobe"
)

// attachTypes are those of trampolines and of tracepoints with types.
var attachTypes = map[string]ebpf.AttachType{
	"fentry": ebpf.AttachTraceFEntry,
	"fexit":  ebpf.AttachTraceFExit,
	"tp_btf": ebpf.AttachTraceRawTp,
}

// tracepointType is what the type of a tracepoint is called, before its name.
const tracepointType = "btf_trace_"

// places lists where a tracer has attached its programs. Iterators, perf events and whatever
// else no packet comes by are left out.
func (r *Running) places() (found []Place, err error) {
	ids, err := r.numbers("link_id:")
	if err != nil {
		return nil, err
	}
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read types of kernel: %w", err)
	}
	for _, id := range ids {
		l, err := link.NewFromID(link.ID(id))
		if err != nil {
			return nil, fmt.Errorf("open BPF link %d: %w", id, err)
		}
		info, err := l.Info()
		if err := errors.Join(err, l.Close()); err != nil {
			return nil, fmt.Errorf("read BPF link %d: %w", id, err)
		}
		p, ok, err := placeOf(info, types)
		if err != nil {
			return nil, fmt.Errorf("read BPF link %d: %w", id, err)
		}
		if ok {
			found = append(found, p)
		}
	}
	return found, nil
}

func placeOf(info *link.Info, types *btf.Spec) (p Place, ok bool, err error) {
	if tracing := info.Tracing(); tracing != nil {
		for kind, attach := range attachTypes {
			if uint32(tracing.AttachType) != uint32(attach) {
				continue
			}
			typ, err := types.TypeByID(tracing.TargetBtfId)
			if err != nil {
				return p, false, err
			}
			name := typ.TypeName()
			if kind == "tp_btf" {
				name = name[len(tracepointType):]
			}
			return Place{kind, name}, true, nil
		}
		return p, false, nil
	}
	if raw := info.RawTracepoint(); raw != nil { // what a program with types is attached to as well
		return Place{"tp_btf", raw.Name}, true, nil
	}
	event := info.PerfEvent()
	if event == nil || event.Kprobe() == nil {
		return p, false, nil
	}
	kind := kindKprobe
	if event.Type == perfEventKretprobe {
		kind = kindKretprobe
	}
	return Place{kind, event.Kprobe().Function}, true, nil
}

// perfEventKretprobe is BPF_PERF_EVENT_KRETPROBE of enum bpf_perf_event_type.
const perfEventKretprobe = 4

// numbers lists what a key says of each descriptor of the tracer's, each number once.
func (r *Running) numbers(key string) (found []uint64, err error) {
	err = r.fdinfo(func(info []byte) {
		if n, ok := numberAfter(info, key); ok && !slices.Contains(found, n) {
			found = append(found, n)
		}
	})
	return found, err
}

func KeepPlaces(r *Running, backend string) error {
	places, err := r.places()
	if err != nil {
		return err
	}
	content, err := json.Marshal(places)
	if err != nil {
		return err
	}
	return os.WriteFile(PlacesFile(backend), content, 0o644)
}

// PlacesFile is where the places of a backend's programs are kept for the empty ones.
func PlacesFile(backend string) string { return "/run/places-" + backend }
