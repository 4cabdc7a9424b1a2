// SPDX-License-Identifier: Apache-2.0

// Package owner answers whose listener it is: socket -> process -> cgroup ->
// container -> pod.
//
// It never looks at the task a packet happened to interrupt. The probe hands it
// plain values: every holder of every listening socket from one run of the
// kernel's task_file iterator ([Table.Replace]), then listen(), accept() and
// close as they happen. The rest is read from /proc and cgroupfs, and only
// after a process has been recognised by its start time, so that a reused PID
// names nobody rather than the wrong one. What is unknown stays absent.
package owner
