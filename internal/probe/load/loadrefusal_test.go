// SPDX-License-Identifier: Apache-2.0

package load

import "testing"

func TestMayNotRead(t *testing.T) {
	for line, want := range map[string]bool{
		"program of this type cannot use helper bpf_probe_read#4": true, // 6.12 with lockdown=confidentiality
		"unknown func bpf_probe_read_kernel#113":                  true,
		"22: (85) call bpf_probe_read_kernel#113":                 false,
		"unknown func bpf_loop#181":                               false,
		"":                                                        false,
	} {
		if got := MayNotRead([]string{"0: R1=ctx()", line}); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}
