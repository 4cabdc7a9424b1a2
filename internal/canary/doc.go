// SPDX-License-Identifier: Apache-2.0

// Package canary measures from the client's side how long a TCP connect takes,
// and tells by the client kernel's own account (TCP_INFO) whether a SYN had to be
// sent again or the network is slow. It needs no privileges.
package canary
