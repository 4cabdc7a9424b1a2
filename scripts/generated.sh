#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Lists what test/docs writes, for make generate and make check-generate: its argument, and the file.
cat <<END
outcomes bpf/outcomes.h
causes docs/causes.md
playbook docs/playbook.md
schema docs/schema/v1.json
syscalls-amd64 internal/thread/syscalls_linux_amd64.go
syscalls-arm64 internal/thread/syscalls_linux_arm64.go
END
