// SPDX-License-Identifier: Apache-2.0

package render

import "io"

// NewStream returns the stream of the options' format.
func NewStream(w io.Writer, opts Options) Stream {
	switch opts.Format {
	case FormatJSON:
		return newJSONStream(w)
	case FormatPcapng:
		return newPcapngStream(w, opts)
	default:
		return newTableStream(w, opts)
	}
}
