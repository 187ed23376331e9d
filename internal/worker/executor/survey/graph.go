package survey

import (
	"cmp"
	"context"
	"maps"
	"path"
	"slices"
)

// graph is which directory imports which. Tests do not count: what they import
// is no part of the design.
type graph struct {
	nodes  map[string]*node
	cycles [][]string // directories that import each other, directly or not
	// external counts the directories that import each package from elsewhere.
	external map[string]int
}

// node is a directory with code in it.
type node struct {
	dir      string
	files    int
	code     int
	imports  map[string]bool
	imported map[string]bool
	layer    int // 0: imports none of the others
}

func newGraph(ctx context.Context, t *tree) (*graph, error) {
	g := &graph{nodes: map[string]*node{}, external: map[string]int{}}
	r := newResolver(t)
	outside := map[string]map[string]bool{}
	for _, f := range t.files {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !f.source() || f.test {
			continue
		}
		dir := path.Dir(f.path)
		n := g.node(dir)
		n.files++
		n.code += f.code
		for _, spec := range f.imports {
			to, external := r.resolve(f, spec)
			if external != "" {
				if outside[external] == nil {
					outside[external] = map[string]bool{}
				}
				outside[external][dir] = true
			}
			if to != "" && to != dir {
				n.imports[to] = true
				g.node(to).imported[dir] = true
			}
		}
	}
	for name, dirs := range outside {
		g.external[name] = len(dirs)
	}
	g.findCycles()
	return g, nil
}

func (g *graph) node(dir string) *node {
	n := g.nodes[dir]
	if n == nil {
		n = &node{dir: dir, imports: map[string]bool{}, imported: map[string]bool{}}
		g.nodes[dir] = n
	}
	return n
}

// sorted returns the nodes, most code first.
func (g *graph) sorted() []*node {
	return slices.SortedFunc(maps.Values(g.nodes), func(a, b *node) int {
		return cmp.Or(cmp.Compare(b.code, a.code), cmp.Compare(a.dir, b.dir))
	})
}

// edges returns how many there are.
func (g *graph) edges() int {
	n := 0
	for _, node := range g.nodes {
		n += len(node.imports)
	}
	return n
}

// findCycles finds the strongly connected components of more than one
// directory, and the layers, by Tarjan's algorithm with a stack of its own: the
// depth of an import chain is not bounded.
func (g *graph) findCycles() {
	type frame struct {
		dir  string
		next []string
	}
	index, low := map[string]int{}, map[string]int{}
	onStack := map[string]bool{}
	var stack []string
	var frames []frame
	enter := func(dir string) {
		index[dir] = len(index) + 1
		low[dir] = index[dir]
		stack = append(stack, dir)
		onStack[dir] = true
		frames = append(frames, frame{dir, slices.Sorted(maps.Keys(g.nodes[dir].imports))})
	}
	for _, start := range slices.Sorted(maps.Keys(g.nodes)) {
		if index[start] != 0 {
			continue
		}
		enter(start)
		for len(frames) > 0 {
			top := &frames[len(frames)-1]
			if len(top.next) > 0 {
				to := top.next[0]
				top.next = top.next[1:]
				if index[to] == 0 {
					enter(to)
				} else if onStack[to] {
					low[top.dir] = min(low[top.dir], index[to])
				}
				continue
			}
			dir := top.dir
			frames = frames[:len(frames)-1]
			if len(frames) > 0 {
				parent := frames[len(frames)-1].dir
				low[parent] = min(low[parent], low[dir])
			}
			if low[dir] == index[dir] {
				at := slices.Index(stack, dir)
				component := slices.Sorted(slices.Values(stack[at:]))
				stack = stack[:at]
				for _, d := range component {
					onStack[d] = false
				}
				g.setLayer(component)
				if len(component) > 1 {
					g.cycles = append(g.cycles, component)
				}
			}
		}
	}
	slices.SortFunc(g.cycles, slices.Compare)
}

// setLayer puts directories that import each other one above what they import,
// which has its layer already.
func (g *graph) setLayer(component []string) {
	members := map[string]bool{}
	for _, dir := range component {
		members[dir] = true
	}
	layer := 0
	for _, dir := range component {
		for to := range g.nodes[dir].imports {
			if !members[to] {
				layer = max(layer, g.nodes[to].layer+1)
			}
		}
	}
	for _, dir := range component {
		g.nodes[dir].layer = layer
	}
}

// shortestCycle returns a way along imports from a member of the component back
// to it, as short as there is from the first members.
func (g *graph) shortestCycle(component []string) []string {
	const starts = 50
	var best []string
	for _, start := range component[:min(len(component), starts)] {
		came := map[string]string{}
		queue := []string{start}
		for len(queue) > 0 && came[start] == "" {
			at := queue[0]
			queue = queue[1:]
			for _, to := range slices.Sorted(maps.Keys(g.nodes[at].imports)) {
				if _, seen := came[to]; !seen {
					came[to] = at
					queue = append(queue, to)
				}
			}
		}
		way := []string{start}
		for at := came[start]; at != start; at = came[at] {
			way = append(way, at)
		}
		way = append(way, start)
		slices.Reverse(way)
		if best == nil || len(way) < len(best) {
			best = way
		}
	}
	return best
}
