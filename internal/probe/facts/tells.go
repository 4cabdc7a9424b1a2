// SPDX-License-Identifier: Apache-2.0

package facts

import "slices"

// LeavesSleepers reports whether a trampoline at the exit of a function that sleeps can
// be taken away safely.
func (f *Facts) LeavesSleepers() bool { return slices.ContainsFunc(SleeperFunctions(), f.Has) }

// TellReasons reports whether kfree_skb tells why, and the kernel names its reasons.
func (f *Facts) TellReasons() bool {
	return len(f.Reasons) > 0 && f.Tracepoints["kfree_skb"] >= ReasonArgs
}

// TellPlaces reports whether consume_skb tells which function frees, and the kernel where those are.
func (f *Facts) TellPlaces() bool { return f.Tracepoints["consume_skb"] >= 2 && len(f.Code) > 0 }

// TellSockets reports whether kfree_skb tells for which socket the packet was. Without reasons that
// says too little: whatever dies at a listener would be taken for a bad ACK.
func (f *Facts) TellSockets() bool {
	return f.TellReasons() && f.Tracepoints["kfree_skb"] >= rxSocketArgs
}

// Needed reports whether the function tells anything on this kernel that nothing else
// does. resets says that tcp_send_reset is hooked, or nothing can stand in for it.
func (f *Facts) Needed(function string, resets bool) bool {
	switch function {
	case "tcp_timewait_state_process":
		return !f.TellSockets()
	case "tcp_v4_send_reset", "tcp_v6_send_reset":
		return !resets || len(f.Reasons) == 0
	case "security_inet_conn_request": // on the path of every SYN
		return f.LSM
	}
	return true
}

// How many arguments kfree_skb has once it tells the reason, 5.17, and the socket, 6.11.
const (
	ReasonArgs   = 3
	rxSocketArgs = 4
)

// Has reports whether the kernel is known to have the function. Some kernels' type
// information leaves static ones out.
func (f *Facts) Has(function string) bool {
	_, typed := f.Functions[function]
	return typed || len(f.Code[function]) > 0
}

// AnyResetArgs is how many arguments tcp_send_reset has once it tells of every RST, not
// only of those that a full socket sends: 6.10.
const AnyResetArgs = 3
