// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// chart is the picture of one listener's window: panels with one axis of time
// below each other, and bands across all of them. Texts stand beside the SVG,
// which is stretched to the width there is.
type chart struct {
	Panels []panel
	Bands  []band
	Ticks  []axisTick // of the time below
	Keys   []chartKey
}

// chartKey explains a colour by its CSS class.
type chartKey struct{ Class, Text string }

// panel is one SVG of 1000 by 100 units.
type panel struct {
	Title  string
	Kind   string // its CSS class: accept, syn, drop, rate
	Shapes []shape
	Marks  []axisTick // of the axis on the left
}

// shape is a path.
type shape struct{ Class, D string }

// band is a time span, in units.
type band struct {
	Class string
	X, W  string
	Title string
}

// axisTick is a label at so many percent from the left, or from the top.
type axisTick struct {
	At   string
	Text string
}

// chartBins bounds the size of a picture; a screen has hardly more pixels.
const chartBins = 360

// bins is a timeline in bins: NaN where nothing is known.
type bins struct {
	seconds, step                         float64 // of the whole, of a bin
	accept, acceptLimit                   []float64
	syn, synLimit                         []float64
	arrivals, retries, accepts, drops     []float64
	throttled                             []bool
	anyQueue, anySyn, anyRate, anyRetries bool
	anyDrops, anyThrottled                bool
}

// newChart returns nil where there is nothing to show.
func newChart(t *event.Timeline, windowS float64) *chart {
	b := newBins(t, windowS)
	if b == nil {
		return nil
	}
	c := &chart{}
	for _, k := range []struct {
		shown bool
		key   chartKey
	}{
		{b.anyQueue, chartKey{"accept", "accept queue"}},
		{b.anySyn, chartKey{"syn", "SYN queue"}},
		{b.anyRate, chartKey{"arrivals", "arrivals"}},
		{b.anyRate && b.anyRetries, chartKey{"retries", "of them SYNs sent again"}},
		{b.anyRate, chartKey{"accepts", "accepts"}},
		{b.anyDrops, chartKey{"drop", "drops, shaded wherever any"}},
		{b.anyThrottled, chartKey{"throttled", "CPU quota used up"}},
	} {
		if k.shown {
			c.Keys = append(c.Keys, k.key)
		}
	}
	if b.anyQueue {
		c.Panels = append(c.Panels, queuePanel("accept queue, sockets", "accept", b.accept,
			b.acceptLimit))
	}
	if b.anySyn {
		c.Panels = append(c.Panels, queuePanel("SYN queue, half-open handshakes", "syn",
			b.syn, b.synLimit))
	}
	if b.anyDrops {
		top := most(b.drops)
		c.Panels = append(c.Panels, panel{Title: "dropped or reset, packets a second",
			Kind:   "drop",
			Shapes: []shape{{"fill", area(b.drops, top)}}, Marks: marks(top)})
	}
	if b.anyRate {
		top := max(most(b.arrivals), most(b.accepts))
		p := panel{Title: "arrivals and accepts a second", Kind: "rate", Marks: marks(top)}
		p.Shapes = append(p.Shapes, shape{"arrivals", area(b.arrivals, top)})
		if b.anyRetries {
			p.Shapes = append(p.Shapes, shape{"retries", area(b.retries, top)})
		}
		p.Shapes = append(p.Shapes, shape{"accepts", area(b.accepts, top)}) // what stands out above was not accepted
		c.Panels = append(c.Panels, p)
	}
	if len(c.Panels) == 0 {
		return nil
	}
	c.bands("throttled", b.throttled, b, "CPU quota used up")
	dropping := make([]bool, len(b.drops))
	for i, n := range b.drops {
		dropping[i] = n > 0
	}
	c.bands("dropping", dropping, b, "packets dropped or reset")
	every := niceStep(b.seconds / 6)
	for at := 0.0; at <= b.seconds*1.0001; at += every {
		c.Ticks = append(c.Ticks,
			axisTick{unit(100 * at / b.seconds),
				strconv.FormatFloat(math.Round(at*1000)/1000, 'f', -1, 64) + " s"})
	}
	return c
}

func newBins(t *event.Timeline, windowS float64) *bins {
	if t.StepMs == 0 || len(t.Points) == 0 {
		return nil
	}
	step := float64(t.StepMs)
	end := max(windowS*1000, float64(t.Points[len(t.Points)-1].OffsetMs)+step)
	total := int(math.Ceil(end / step))
	// As many steps in each: else bins would differ for want of one.
	each := (total + chartBins - 1) / chartBins
	n := (total + each - 1) / each
	b := &bins{seconds: float64(n*each) * step / 1000, step: float64(each) * step / 1000,
		throttled: make([]bool, n)}
	for _, s := range []*[]float64{&b.accept, &b.acceptLimit, &b.syn, &b.synLimit, &b.arrivals,
		&b.retries, &b.accepts, &b.drops} {
		*s = make([]float64, n)
		for i := range *s {
			(*s)[i] = math.NaN()
		}
	}
	for i := range t.Points {
		p := &t.Points[i]
		at := int(float64(p.OffsetMs)/step) / each
		if at >= n {
			continue
		}
		if q := p.AcceptQueue; q != nil {
			b.anyQueue = true
			highest(&b.accept[at], q.Len)
			highest(&b.acceptLimit[at], q.Limit)
		}
		if q := p.SynQueue; q != nil {
			b.anySyn = true
			highest(&b.syn[at], q.Len)
			highest(&b.synLimit[at], q.Limit)
		}
		b.rate(b.arrivals, at, p.Arrivals, &b.anyRate)
		b.rate(b.retries, at, p.Retries, nil)
		b.anyRetries = b.anyRetries || p.Retries != nil && *p.Retries > 0
		b.rate(b.accepts, at, p.Accepts, &b.anyRate)
		b.rate(b.drops, at, p.Drops, nil)
		b.anyDrops = b.anyDrops || p.Drops != nil && *p.Drops > 0
		b.throttled[at] = b.throttled[at] || p.Throttled
		b.anyThrottled = b.anyThrottled || p.Throttled
	}
	return b
}

func highest(to *float64, n uint32) {
	if math.IsNaN(*to) || float64(n) > *to {
		*to = float64(n)
	}
}

// rate adds a count as what it is a second.
func (b *bins) rate(to []float64, at int, n *uint64, known *bool) {
	if n == nil {
		return
	}
	if known != nil {
		*known = true
	}
	if math.IsNaN(to[at]) {
		to[at] = 0
	}
	to[at] += float64(*n) / b.step
}

// queuePanel has the limit in it, where that is not far out of sight.
func queuePanel(title, kind string, length, limit []float64) panel {
	top, bound := most(length), most(limit)
	p := panel{Title: title, Kind: kind}
	inSight := bound > 0 && bound <= 8*top
	if inSight {
		top = max(top, bound)
	}
	top = max(top*1.08, 1)
	p.Shapes = append(p.Shapes, shape{"fill", area(length, top)})
	if inSight {
		p.Shapes = append(p.Shapes, shape{"limit", steps(limit, top)})
		p.Marks = append(p.Marks, axisTick{unit(100 - 100*bound/top), "limit " +
			number(bound, Options{})})
		if over := most(length); over > bound*1.3 { // else one would be written over the other
			p.Marks = append(p.Marks,
				axisTick{unit(100 - 100*over/top), number(over, Options{})})
		}
	} else {
		if most(length) > 0 { // else it is the zero below
			p.Marks = append(p.Marks,
				axisTick{unit(100 - 100*most(length)/top),
					number(most(length), Options{})})
		}
		if bound > 0 {
			p.Title += fmt.Sprintf(" (limit %s)", number(bound, Options{}))
		}
	}
	p.Marks = append(p.Marks, axisTick{"100", "0"})
	return p
}

func marks(top float64) []axisTick {
	if top <= 0 {
		return []axisTick{{"100", "0"}}
	}
	return []axisTick{{"0", number(math.Round(top*10)/10, Options{})}, {"100", "0"}}
}

// bands joins the bins that follow each other.
func (c *chart) bands(class string, on []bool, b *bins, what string) {
	scale := 1000 / float64(len(on))
	for i := 0; i < len(on); {
		if !on[i] {
			i++
			continue
		}
		begin := i
		for i < len(on) && on[i] {
			i++
		}
		c.Bands = append(c.Bands,
			band{class, unit(float64(begin) * scale), unit(float64(i-begin) * scale),
				fmt.Sprintf("%s, %.2f to %.2f s", what, float64(begin)*b.step,
					float64(i)*b.step)})
	}
}

func most(values []float64) float64 {
	top := 0.0
	for _, v := range values {
		if v > top { // NaN is not
			top = v
		}
	}
	return top
}

// steps is the outline of the values, with gaps where they are unknown; area is
// what is below it.
func steps(values []float64, top float64) string { return trace(values, top, false) }
func area(values []float64, top float64) string  { return trace(values, top, true) }

func trace(values []float64, top float64, closed bool) string {
	var d strings.Builder
	scale, begun := 1000/float64(len(values)), false
	end := func(i int) {
		if begun {
			d.WriteString("H" + unit(float64(i)*scale))
		}
		if begun && closed {
			d.WriteString("V100Z")
		}
		begun = false
	}
	last := ""
	for i, v := range values {
		if math.IsNaN(v) || top <= 0 {
			end(i)
			continue
		}
		x, y := unit(float64(i)*scale), unit(100-100*min(v/top, 1))
		switch {
		case !begun && closed:
			d.WriteString("M" + x + ",100V" + y)
		case !begun:
			d.WriteString("M" + x + "," + y)
		case y != last:
			d.WriteString("H" + x + "V" + y)
		}
		begun, last = true, y
	}
	end(len(values))
	return d.String()
}

// unit writes a coordinate.
func unit(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

// niceStep is the next of 1, 2, 5, 10, 20...
func niceStep(atLeast float64) float64 {
	if atLeast <= 0 {
		return 1
	}
	decade := math.Pow(10, math.Floor(math.Log10(atLeast)))
	for _, f := range []float64{1, 2, 5} {
		if f*decade >= atLeast*0.999 {
			return f * decade
		}
	}
	return 10 * decade
}
