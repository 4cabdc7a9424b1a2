// SPDX-License-Identifier: Apache-2.0

package kernel

import "testing"

func TestRejectUse(t *testing.T) {
	const idle = `nft_reject_inet 12288 0 - Live 0x0
nf_reject_ipv4 12288 1 nft_reject_inet, Live 0x0
nf_reject_ipv6 20480 1 nft_reject_inet, Live 0x0
nft_reject 12288 1 nft_reject_inet, Live 0x0
nf_tables 368640 1 nft_reject, Live 0x0
`
	for _, c := range []struct {
		name, modules string
		want          RejectUse
	}{
		{"none", "tun 69632 2 - Live 0x0\n", RejectUse{}},
		{"no rule", idle, RejectUse{Loaded: true}},
		{"a rule of nft", "nft_reject_inet 12288 1 - Live 0x0\n", RejectUse{true, true}},
		{"a rule of iptables", idle + "ipt_REJECT 12288 3 - Live 0x0\n",
			RejectUse{true, true}},
		{"another's", "nf_reject_ipv4 12288 2 nft_reject_inet,xt_ECHO, Live 0x0\n",
			RejectUse{true, true}},
		{"used by modules alone", "nft_reject_ipv4 12288 1 other, Live 0x0\n",
			RejectUse{Loaded: true}},
	} {
		if got := rejectUse([]byte(c.modules)); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
