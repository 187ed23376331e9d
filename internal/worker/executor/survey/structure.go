package survey

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// structure shows which directory imports which.
func (f *findings) structure(d *document) {
	d.heading("What imports what")
	nodes := f.graph.sorted()
	if len(nodes) == 0 {
		d.paragraph("There is no code whose imports are understood here.")
		return
	}
	f.diagram(d)
	d.paragraph("Layer 0 imports nothing from here; each other layer imports from the ones below it.")
	var rows [][]string
	for _, n := range nodes[:min(len(nodes), maxPackages)] {
		rows = append(rows, []string{code(n.dir), number(n.files), number(n.code), number(n.layer), number(len(n.imported)), named(slices.Sorted(maps.Keys(n.imports)))})
	}
	d.table([]string{"directory", "files:", "code:", "layer:", "imported by:", "imports"}, rows)
	if more := len(nodes) - maxPackages; more > 0 {
		d.paragraph("And %s with less code.", count(more, "directory", "directories"))
	}
	if len(f.tree.mains) > 0 {
		d.paragraph("Programs start in %s.", named(f.tree.mains[:min(len(f.tree.mains), maxEntryPoints)]))
	}
	external := slices.Sorted(maps.Keys(f.graph.external))
	slices.SortStableFunc(external, func(a, b string) int { return cmp.Compare(f.graph.external[b], f.graph.external[a]) })
	if len(external) > 0 {
		var most []string
		for _, name := range external[:min(len(external), maxNamed)] {
			most = append(most, fmt.Sprintf("%s (%d)", code(name), f.graph.external[name]))
		}
		d.paragraph("Packages from elsewhere that most directories import: %s.", strings.Join(most, ", "))
	}
}

// named lists names as code, the first of them if there are many.
func named(names []string) string {
	var shown []string
	for _, n := range names[:min(len(names), maxNamed)] {
		shown = append(shown, code(n))
	}
	if more := len(names) - maxNamed; more > 0 {
		shown = append(shown, fmt.Sprintf("%d more", more))
	}
	return strings.Join(shown, ", ")
}

// diagram draws the imports between directories, which it groups by the
// beginnings of their paths until there are few enough.
func (f *findings) diagram(d *document) {
	for depth := 8; depth > 0; depth-- {
		groups, edges := map[string]bool{}, map[[2]string]bool{}
		for dir, n := range f.graph.nodes {
			from := upTo(dir, depth)
			for to := range n.imports {
				if to := upTo(to, depth); to != from {
					groups[from], groups[to] = true, true
					edges[[2]string{from, to}] = true
				}
			}
		}
		if len(groups) > maxDiagram {
			continue
		}
		if len(edges) == 0 {
			return
		}
		ids := map[string]string{}
		d.WriteString("```mermaid\nflowchart LR\n")
		for i, g := range slices.Sorted(maps.Keys(groups)) {
			ids[g] = fmt.Sprintf("n%d", i)
			fmt.Fprintf(d, "  %s[\"%s\"]\n", ids[g], label(g))
		}
		for _, e := range slices.SortedFunc(maps.Keys(edges), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
			fmt.Fprintf(d, "  %s --> %s\n", ids[e[0]], ids[e[1]])
		}
		d.WriteString("```\n\n")
		return
	}
}

func upTo(dir string, depth int) string {
	parts := strings.Split(dir, "/")
	return path.Join(parts[:min(len(parts), depth)]...)
}

// label returns s for a box of a diagram.
func label(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("\"`<>#;&\\", r) {
			return '\uFFFD'
		}
		return r
	}, visible(s, 60))
}
