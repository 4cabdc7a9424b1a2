// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestEnumerator(t *testing.T) {
	for name, want := range map[string]string{
		"OutcomeNone": "OUTCOME_NONE", "OutcomeICMPError": "OUTCOME_ICMP_ERROR",
		"OutcomeSynDeniedByLSMCookies": "OUTCOME_SYN_DENIED_BY_LSM_COOKIES",
		"OutcomeIngressRPFilter":       "OUTCOME_INGRESS_RP_FILTER",
		"OutcomeIngressTimeWaitPAWS":   "OUTCOME_INGRESS_TIME_WAIT_PAWS",
		"NumOutcomes":                  "NUM_OUTCOMES",
	} {
		if got := enumerator(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}
