// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"strings"
	"unicode"
)

// outcomes writes the enum of the kernel side, from the constants of internal/event/outcome.go.
func outcomes(to io.Writer) error {
	const source = "internal/event/outcome.go"
	file, err := parser.ParseFile(token.NewFileSet(), source, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString("/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */\n" +
		"/* Made by \"make generate\" from " + source + ": do not edit. */\n" +
		"#ifndef SYNSPY_OUTCOMES_H\n#define SYNSPY_OUTCOMES_H\n\nenum outcome {\n")
	ast.Inspect(file, func(node ast.Node) bool {
		if spec, ok := node.(*ast.ValueSpec); ok {
			for _, name := range spec.Names {
				if strings.HasPrefix(name.Name, "Outcome") ||
					name.Name == "NumOutcomes" {
					fmt.Fprintf(&b, "\t%s,\n", enumerator(name.Name))
				}
			}
		}
		return true
	})
	b.WriteString("};\n\n#endif\n")
	_, err = io.WriteString(to, b.String())
	return err
}

// enumerator is a constant's name in C: OutcomeIngressRPFilter is OUTCOME_INGRESS_RP_FILTER.
func enumerator(name string) string {
	var b strings.Builder
	letters := []rune(name)
	for i, r := range letters {
		begins := unicode.IsUpper(r) && (i > 0 && unicode.IsLower(letters[i-1]) ||
			i+1 < len(letters) && unicode.IsLower(letters[i+1]))
		if begins && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}
