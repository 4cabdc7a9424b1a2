// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"net/netip"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/synspy/synspy/internal/event"
)

// encode writes a record as a stream does.
func encode(t *testing.T, record any) []byte {
	t.Helper()
	var buf bytes.Buffer
	s := NewStream(&buf, Options{Format: FormatJSON})
	var err error
	switch r := record.(type) {
	case *event.Ready:
		err = s.Ready(*r)
	case *event.Drop:
		err = s.Drop(r)
	case *event.Suppressed:
		err = s.Suppressed(*r)
	case *event.Summary:
		err = s.Summary(*r)
	}
	if err == nil {
		err = s.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestRoundTrip: what is read back says the same, and writes the same.
func TestRoundTrip(t *testing.T) {
	for seed := range uint64(2000) {
		ready, held, sum := random[event.Ready](seed), random[event.Suppressed](seed),
			random[event.Summary](seed)
		drop := random[event.Drop](seed)
		ready.Header, held.Header, sum.Header, drop.Header = event.Head("ready"),
			event.Head("lost"), event.Head("summary"), event.Head("drop")
		for _, record := range []any{ready, held, sum, drop} {
			text := encode(t, record)
			back, err := event.Decode(bytes.TrimSuffix(text, []byte("\n")))
			if err != nil {
				t.Fatalf("seed %d: %v: %s", seed, err, text)
			}
			if again := encode(t, back); !bytes.Equal(text, again) {
				t.Fatalf("seed %d:\n wrote %s\n then %s", seed, text, again)
			}
		}
	}
}

// TestRoundTripValues: not only the text is the same. What JSON does not carry is
// left out.
func TestRoundTripValues(t *testing.T) {
	options := cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}),
		cmpopts.IgnoreFields(event.Listener{}, "Key"),
		cmpopts.IgnoreFields(event.Drop{}, "Packet", "Mono"),
		cmpopts.IgnoreFields(event.Process{}, "Start")}
	for _, want := range append(scene(), packets()...) {
		for i := range want.Processes {
			want.Processes[i].Comm = "ev\x1b\u202e\n\"<b>" // valid UTF-8, the rest is replaced
		}
		got, err := event.Decode(encode(t, want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, options); diff != "" {
			t.Error(diff)
		}
	}
}

// TestUnknownIsAbsent: a record that knows nothing says nothing.
func TestUnknownIsAbsent(t *testing.T) {
	for want, record := range map[string]any{
		`{"v":1,"type":"drop"}`:                               &event.Drop{},
		`{"v":1,"type":"suppressed","count":2,"others":true}`: &event.Suppressed{Count: 2, Others: true},
		`{"v":1,"type":"drop","client":{"port":7},"listener":{"port":80}}`: &event.Drop{
			Cause: event.NumCauses, Stage: event.NumStages, Action: event.NumActions,
			Proof:    event.NumProofs,
			Kernel:   event.Kernel{Counters: []string{}},
			Client:   &event.Endpoint{Port: 7},
			Listener: &event.Listener{Port: 80}, Processes: []event.Process{}},
	} {
		if got := string(bytes.TrimSpace(encode(t, record))); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	for seed := range uint64(2000) {
		got := encode(t, random[event.Drop](seed))
		for _, text := range []string{`"unknown"`, `"addr":""`, `"proof":""`, `"kernel":{}`, `"function":""`, `"role":""`,
			`"netns":0,`, `"time":"0001`} {
			if bytes.Contains(got, []byte(text)) {
				t.Fatalf("seed %d: %s in %s", seed, text, got)
			}
		}
	}
}

// TestSchemaGrows: members and types of later versions are passed over.
func TestSchemaGrows(t *testing.T) {
	got, err := event.Decode([]byte(`{"v":1,"type":"lost","new":{"a":[1]},"count":3,"cause":"new_cause"}`))
	if want := (&event.Suppressed{Header: event.Head("lost"), Count: 3}); err != nil ||
		!reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	got, err = event.Decode([]byte(`{"v":1,"type":"new","count":"three"}`))
	if _, ok := got.(*event.UnknownType); !ok || err != nil {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, line := range []string{`{"v":2,"type":"drop"}`, `{"type":"drop"}`, `{}`, `{"v":1,"type":"drop"`, `[]`, ``,
		`{"v":1,"type":"lost","count":-1}`} {
		if got, err := event.Decode([]byte(line)); err == nil {
			t.Errorf("%s: got %+v", line, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, d := range scene() {
		var buf bytes.Buffer
		s := NewStream(&buf, Options{Format: FormatJSON})
		_, _ = s.Drop(d), s.Flush()
		f.Add(buf.Bytes())
	}
	f.Add([]byte(`{"v":1,"type":"summary","ledger":[{"gone":true}],"seen":[{}]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		record, err := event.Decode(line)
		if err != nil {
			return
		}
		text := encode(t, record)
		if len(text) == 0 {
			return // of a type that is not known
		}
		back, err := event.Decode(text)
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if again := encode(t, back); !bytes.Equal(text, again) {
			t.Fatalf("wrote %s\nthen %s", text, again)
		}
	})
}
