// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"math"
	"testing"
)

func TestClientsAndTheirAnswers(t *testing.T) {
	seen := make(map[string]Client)
	for _, c := range []Client{0, 1, HostsPerNet - 1, HostsPerNet, HostsPerNet*nets - 1, HostsPerNet * nets, Pool, Pool + 8191} {
		addr := c.Addr()
		if got := clientOf(addr[:], c.port()); got != c {
			t.Errorf("client %d has address %v and port %d, which are those of %d", c, addr, c.port(), got)
		}
		syn := string(c.syn(80))
		if other, ok := seen[syn]; ok {
			t.Errorf("clients %d and %d send the same SYN", c, other)
		}
		seen[syn] = c
		if _, _, ok := synAck([]byte(syn)); ok {
			t.Errorf("the SYN of client %d is taken for an answer", c)
		}
	}
}

func TestFrameChecksums(t *testing.T) {
	p := Client(7).ACK(8080, 99)
	if Fold(Sum(0, p[:20])) != 0xffff {
		t.Error("wrong IPv4 checksum")
	}
	if Fold(Sum(Sum(6+20, p[12:20]), p[20:])) != 0xffff {
		t.Error("wrong TCP checksum")
	}
}

// Half of the chunks being slow must not change the rate.
func TestRateIgnoresDisturbance(t *testing.T) {
	var took Times
	for i := range 100 {
		took = append(took, 0.001+0.001*float64(i%2)*10)
	}
	if got, want := took.Rate(), chunk/0.001; math.Abs(got/want-1) > 1e-9 {
		t.Errorf("rate %f, want %f", got, want)
	}
	if got, want := took.WallRate(), chunk/0.006; math.Abs(got/want-1) > 1e-9 {
		t.Errorf("rate by the clock %f, want %f", got, want)
	}
}
