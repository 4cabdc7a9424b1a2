// SPDX-License-Identifier: Apache-2.0

// Package schema has the JSON Schema of synspy's records.
package schema

import _ "embed"

// V1 is that of schema version 1.
//
//go:embed v1.json
var V1 []byte
