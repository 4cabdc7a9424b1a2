// SPDX-License-Identifier: Apache-2.0

package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"runtime"
	"time"
)

// signFor does on the calling thread what TLS handshakes do there, for so long: it
// signs.
func signFor(busy time.Duration) {
	if busy <= 0 {
		return
	}
	until := time.Now().Add(busy)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	for digest := sha256.Sum256([]byte("hello")); err == nil && time.Now().Before(until); {
		_, err = ecdsa.SignASN1(rand.Reader, key, digest[:])
	}
}

// hog takes all the CPU time that it gets.
func hog() {
	runtime.LockOSThread()
	for {
		signFor(time.Hour)
	}
}
