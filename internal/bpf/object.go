package bpf

// Object is the compiled kernel side, an ELF file.
func Object() []byte { return _SynspyBytes }
