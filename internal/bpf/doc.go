// SPDX-License-Identifier: Apache-2.0

// Package bpf holds the kernel side as compiled objects with their Go bindings.
// Both are generated from the bpf folder and committed, so that building
// synspy needs no clang.
package bpf

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -cflags "-I../../bpf/headers -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-declarations -mcpu=v3" -type record -type captured -type listen_change -type holder -type listener -type accepting -type acceptor Synspy ../../bpf/synspy.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -cflags "-I../../bpf/headers -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-declarations -mcpu=v3" -type no_stack -type thread_state Sampler ../../bpf/sampler.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -cflags "-I../../bpf/headers -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-declarations -mcpu=v3" -type shortage Shortage ../../bpf/shortage.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -cflags "-I../../bpf/headers -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-declarations -mcpu=v3" Strays ../../bpf/strays.bpf.c
