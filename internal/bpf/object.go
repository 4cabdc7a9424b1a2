// SPDX-License-Identifier: Apache-2.0

package bpf

// Object is the compiled kernel side, an ELF file.
func Object() []byte { return _SynspyBytes }
