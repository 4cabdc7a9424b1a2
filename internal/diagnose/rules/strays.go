// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"slices"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// sawFrames reports SYNs that came in frames for another host.
func (f *Found) sawFrames(e *evidence.Evidence) {
	told := 0
	for _, s := range e.Strays {
		if !s.Frame() || told == maxFrames {
			continue
		}
		told++
		at := ""
		if s.Device != "" {
			at = " on " + evidence.Said(s.Device)
		}
		f.saw("SYNs to "+evidence.Where(event.Listener{Addr: s.Server.Addr,
			Port: s.Server.Port})+" in frames for "+s.MAC+at, s.Count, "packets")
		if s.OwnMAC != "" {
			f.saw("MAC address of "+evidence.Said(s.Device), s.OwnMAC, "")
		}
		if told == 1 {
			f.Because += "; SYNs came" + at + ", in frames for another MAC address (" +
				s.MAC + ")"
			f.fix("find out why frames for this host's address go to " + s.MAC +
				": a stale ARP or neighbour entry at the client or its router, " +
				"an address that moved (VRRP, keepalived) or that two hosts have")
		}
	}
}

// maxFrames bounds how many kinds of such frames are told.
const maxFrames = 3

// dropsAnswers makes the finding about SYN-ACKs that did not leave: freed, or given up since they
// could not be sent.
func (f *Found) dropsAnswers(l *evidence.Listener, freed []evidence.Stray) {
	n, places := f.citeFreers(l, freed, "SYN-ACKs", "to the client")
	if len(freed) > 0 {
		f.Owner = freed[0].Freer().Owner
		f.Counted = true // what dies besides are the handshakes that this leaves behind, or ICMP errors about it
		f.Because = advice.Many(n, "SYN-ACK") + " " + advice.Be(n) +
			" dropped on the way out here, by " + list(places)
		f.Confidence = event.ConfidenceProven
		if 2*n < f.Weight || freed[0].NetNS != l.ID.NetNS {
			f.Confidence = event.ConfidenceLikely // the watch may have begun late; more is not seen
		}
		f.Settles = ""
		return
	}
	f.Owner = "platform"
	f.Confidence = event.ConfidenceLikely
	f.Because = "this host could not send SYN-ACKs again"
	f.Settles = "where they are dropped here: the same again, for longer, while clients come"
	f.fix("look for what drops packets from the listener's port on this host's way out: nft list ruleset (output, postrouting), " +
		"ip neigh, the unit's IPAddressDeny=, tc filter show egress")
}

// citeFreers cites who freed packets of a kind, and what to do about it, and tells how many they
// were and where.
func (f *Found) citeFreers(l *evidence.Listener, freed []evidence.Stray, what,
	way string) (n uint64, places []string) {
	at := make(map[string]int) // of Evidence, by place: several functions may free there
	for _, s := range freed {
		n += s.Count
		by := s.Freer()
		if s.NetNS != l.ID.NetNS {
			by.Place += s.Enter.InSpace(s.NetNS, s.Own) + ", on the way " + way
		}
		if !slices.Contains(places, by.Place) && len(places) < 3 {
			places = append(places, by.Place)
			at[by.Place] = len(f.Evidence)
			f.saw(what+" dropped by "+by.Place, s.Count, "packets")
			f.fix(by.Fix...)
		} else if i, told := at[by.Place]; told {
			f.Evidence[i].Value = f.Evidence[i].Value.(uint64) + s.Count
		}
		for _, named := range []struct{ what, value string }{{"kernel function",
			s.Kernel.Function}, {"kernel reason", s.Kernel.Reason}, {"device", evidence.Said(s.Device)}} {
			if named.value != "" && len(places) == 1 && s.Count == freed[0].Count {
				f.saw(named.what, named.value, "")
			}
		}
	}
	return n, places
}

// dropped counts packets.
func dropped(strays []evidence.Stray) (n uint64) {
	for _, s := range strays {
		n += s.Count
	}
	return n
}

// dropsAcks makes the finding about the ACKs of handshakes that were dropped here before they
// reached the listener.
func (f *Found) dropsAcks(l *evidence.Listener, freed []evidence.Stray) {
	n, places := f.citeFreers(l, freed, "clients' segments without SYN", "to the listener")
	f.Owner = "platform"
	f.Counted = true // what dies besides are the handshakes that this leaves behind
	f.Because = "ACKs of clients' handshakes were dropped here, by " + list(places)
	// Segments of connections look the same: where some handshake was finished, it may be
	// those.
	f.Confidence, f.Settles = event.ConfidenceLikely, ""
	if l.Finished != nil && *l.Finished == 0 && 2*n >= f.Weight &&
		freed[0].NetNS == l.ID.NetNS {
		f.Confidence = event.ConfidenceProven
	}
}
