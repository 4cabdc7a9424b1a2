// SPDX-License-Identifier: Apache-2.0

// Package containers asks the container runtimes of this machine what their
// containers and pods are called: CRI over gRPC (containerd, CRI-O,
// cri-dockerd), and the HTTP API of Docker and Podman, always over a unix
// socket.
//
// Nobody waits for a runtime longer than he wants to: [Names.Lookup] answers
// from memory and has the rest asked in the background. Entries, concurrent calls
// and the time of a call are bounded; what no runtime knows stays unnamed.
package containers
