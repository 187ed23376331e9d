package survey

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// manifest is a file in which a project says what it needs.
type manifest struct {
	path string
	kind string
	name string // of what it describes
	deps []dependency
}

type dependency struct {
	name, version string
	use           string // "", "indirect", "development", "build"
}

// maxManifestsRead and maxDeps, of one manifest, bound what is kept.
const (
	maxManifestsRead = 1000
	maxDeps          = 5000
)

// The kinds of manifests.
const (
	goModule     = "Go module"
	npm          = "npm package"
	cargo        = "Rust crate"
	pyproject    = "Python project"
	requirements = "Python requirements"
	maven        = "Maven project"
	gradle       = "Gradle project"
	composer     = "Composer package"
	gemfile      = "Ruby bundle"
)

var requirementsName = regexp.MustCompile(`^requirements[\w.-]*\.txt$`)

// manifestKind returns the kind of manifest that a file is by its name, or "".
func manifestKind(name string) string {
	base := path.Base(name)
	switch base {
	case "go.mod":
		return goModule
	case "package.json":
		return npm
	case "Cargo.toml":
		return cargo
	case "pyproject.toml":
		return pyproject
	case "pom.xml":
		return maven
	case "build.gradle", "build.gradle.kts":
		return gradle
	case "composer.json":
		return composer
	case "Gemfile":
		return gemfile
	}
	if requirementsName.MatchString(base) {
		return requirements
	}
	return ""
}

// readManifest takes in what a manifest says. One that cannot be read counts as
// one that says nothing.
func (t *tree) readManifest(f *file, content []byte) {
	if len(t.manifests) == maxManifestsRead {
		t.partial = true
		return
	}
	m := manifest{path: f.path, kind: manifestKind(f.path)}
	switch m.kind {
	case goModule:
		m.readGoMod(content)
	case npm, composer:
		m.readJSON(content)
	case cargo, pyproject:
		m.readTOML(content)
	case requirements:
		for line := range bytes.Lines(content) {
			m.addRequirement(string(line), "")
		}
	case maven:
		m.readPOM(content)
	case gradle:
		for _, d := range gradleLine.FindAllSubmatch(content, -1) {
			m.add(string(d[2]), string(d[3]), map[bool]string{true: "development"}[bytes.HasPrefix(d[1], []byte("test"))])
		}
	case gemfile:
		for _, d := range gemLine.FindAllSubmatch(content, -1) {
			m.add(string(d[1]), string(d[2]), "")
		}
	}
	t.manifests = append(t.manifests, m)
}

var (
	gradleLine = regexp.MustCompile(`(?m)^\s*(\w*[iI]mplementation|api|\w*[cC]ompileOnly|\w*[rR]untimeOnly|kapt|ksp)\s*\(?\s*["']([\w.-]+:[\w.-]+)(?::([^"']+))?["']`)
	gemLine    = regexp.MustCompile(`(?m)^\s*gem\s+["']([^"']+)["'](?:\s*,\s*["']([^"']+)["'])?`)
)

func (m *manifest) add(name, version, use string) {
	if name = strings.TrimSpace(name); name != "" && len(m.deps) < maxDeps {
		m.deps = append(m.deps, dependency{name, strings.TrimSpace(version), use})
	}
}

func (m *manifest) readGoMod(content []byte) {
	block := ""
	for raw := range bytes.Lines(content) {
		line, comment, _ := strings.Cut(strings.TrimSpace(string(raw)), "//")
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
			continue
		case words[0] == ")":
			block = ""
			continue
		case len(words) == 2 && words[1] == "(":
			block = words[0]
			continue
		case block != "":
			words = append([]string{block}, words...)
		}
		switch {
		case words[0] == "module" && len(words) == 2:
			m.name = strings.Trim(words[1], `"`)
		case words[0] == "require" && len(words) == 3:
			use := ""
			if strings.TrimSpace(comment) == "indirect" {
				use = "indirect"
			}
			m.add(words[1], words[2], use)
		}
	}
}

func (m *manifest) readJSON(content []byte) {
	var p struct {
		Name            string            `json:"name"`
		Dependencies    map[string]string `json:"dependencies"`
		DevDependencies map[string]string `json:"devDependencies"`
		PeerDeps        map[string]string `json:"peerDependencies"`
		OptionalDeps    map[string]string `json:"optionalDependencies"`
		Require         map[string]string `json:"require"`     // Composer's
		RequireDev      map[string]string `json:"require-dev"` // likewise
	}
	_ = json.Unmarshal(content, &p) // what could be read of it is better than nothing
	m.name = p.Name
	for _, group := range []struct {
		deps map[string]string
		use  string
	}{
		{p.Dependencies, ""}, {p.Require, ""}, {p.PeerDeps, "peer"}, {p.OptionalDeps, "optional"},
		{p.DevDependencies, "development"}, {p.RequireDev, "development"},
	} {
		for _, name := range slices.Sorted(maps.Keys(group.deps)) {
			m.add(name, group.deps[name], group.use)
		}
	}
}

func (m *manifest) readPOM(content []byte) {
	var p struct {
		ArtifactID   string `xml:"artifactId"`
		Dependencies []struct {
			GroupID    string `xml:"groupId"`
			ArtifactID string `xml:"artifactId"`
			Version    string `xml:"version"`
			Scope      string `xml:"scope"`
		} `xml:"dependencies>dependency"`
	}
	_ = xml.Unmarshal(content, &p) // what could be read of it is better than nothing
	m.name = p.ArtifactID
	for _, d := range p.Dependencies {
		use := ""
		if d.Scope == "test" {
			use = "development"
		}
		m.add(d.GroupID+":"+d.ArtifactID, d.Version, use)
	}
}

func (f *findings) dependencies(d *document) {
	d.heading("Dependencies")
	if len(f.tree.manifests) == 0 {
		d.paragraph("No manifest was found.")
		return
	}
	for i, m := range f.tree.manifests {
		if i == maxManifests {
			d.paragraph("And %s.", count(len(f.tree.manifests)-i, "manifest more", "manifests more"))
			break
		}
		name := ""
		if m.name != "" {
			name = " " + code(m.name)
		}
		uses := map[string][]string{}
		for _, dep := range m.deps {
			uses[dep.use] = append(uses[dep.use], strings.TrimSpace(code(dep.name)+" "+plain(dep.version, 40)))
		}
		d.paragraph("**%s** %s%s: %s", code(m.path), m.kind, name, needs(uses))
		if direct := uses[""]; len(direct) > 0 {
			for _, dep := range direct[:min(len(direct), maxDependencies)] {
				d.item("%s", dep)
			}
			if more := len(direct) - maxDependencies; more > 0 {
				d.item("%d more", more)
			}
			d.WriteString("\n")
		}
	}
}

// needs says how many dependencies there are of each use.
func needs(uses map[string][]string) string {
	if len(uses) == 0 {
		return "no dependencies."
	}
	parts := []string{count(len(uses[""]), "direct dependency", "direct dependencies")}
	for _, use := range slices.Sorted(maps.Keys(uses)) {
		if use != "" {
			parts = append(parts, fmt.Sprintf("%s %s", number(len(uses[use])), use))
		}
	}
	return strings.Join(parts, ", ") + "."
}
