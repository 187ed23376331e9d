package survey

import (
	"bytes"
	"regexp"
	"strings"
)

var (
	tomlSection = regexp.MustCompile(`^\[+\s*([^\]]+?)\s*\]+`)
	tomlEntry   = regexp.MustCompile(`^["']?([\w.-]+)["']?\s*=\s*(.*)$`)
	tomlVersion = regexp.MustCompile(`version\s*=\s*["']([^"']*)["']`)
	tomlString  = regexp.MustCompile(`"([^"]*)"|'([^']*)'`)
)

// readTOML reads the lines of a Cargo.toml or pyproject.toml that name
// dependencies; it does not read TOML.
func (m *manifest) readTOML(content []byte) {
	section, list := "", ""
	for raw := range bytes.Lines(content) {
		line := strings.TrimSpace(string(raw))
		switch {
		case line == "" || line[0] == '#':
		case list != "":
			m.addRequirements(line, list)
			if strings.HasPrefix(line, "]") {
				list = ""
			}
		case tomlSection.MatchString(line):
			section = tomlSection.FindStringSubmatch(line)[1]
			// [dependencies.serde] is a dependency itself.
			if table, name, ok := cutLast(section, "."); ok && dependencyUse(m.kind, table) != none {
				m.add(strings.Trim(name, `"'`), "", string(dependencyUse(m.kind, table)))
			}
		default:
			entry := tomlEntry.FindStringSubmatch(line)
			if entry == nil {
				continue
			}
			key, value := entry[1], entry[2]
			use := dependencyUse(m.kind, section)
			switch {
			case key == "name" && (section == "package" || section == "project" || section == "tool.poetry"):
				m.name = strings.Trim(value, `"'`)
			case use != none && m.kind == pyproject && strings.HasPrefix(value, "["): // [project.optional-dependencies]
				list = m.startList(value, string(use))
			case use != none && key != "python":
				m.add(strings.TrimSuffix(key, ".workspace"), tomlValue(value), string(use))
			case m.kind == pyproject && section == "project" && key == "dependencies":
				list = m.startList(value, "direct")
			}
		}
	}
}

// startList reads a list of requirements that begins in value, and returns what
// they are for if it goes on.
func (m *manifest) startList(value, use string) string {
	m.addRequirements(strings.TrimPrefix(value, "["), use)
	if strings.Contains(tomlString.ReplaceAllString(value, ""), "]") {
		return ""
	}
	return use
}

func (m *manifest) addRequirements(line, use string) {
	if use == "direct" {
		use = ""
	}
	for _, s := range tomlString.FindAllStringSubmatch(line, -1) {
		m.addRequirement(s[1]+s[2], use)
	}
}

const none use = "none"

// use is what a dependency is for; "" is to run.
type use string

func dependencyUse(kind, section string) use {
	if kind == cargo {
		if i := strings.LastIndex(section, "'."); strings.HasPrefix(section, "target.") && i > 0 {
			section = section[i+2:]
		}
		switch section {
		case "dependencies", "workspace.dependencies":
			return ""
		case "dev-dependencies":
			return "development"
		case "build-dependencies":
			return "build"
		}
		return none
	}
	switch {
	case section == "tool.poetry.dependencies":
		return ""
	case section == "project.optional-dependencies":
		return "optional"
	case section == "dependency-groups",
		strings.HasPrefix(section, "tool.poetry.group.") && strings.HasSuffix(section, ".dependencies"),
		section == "tool.poetry.dev-dependencies":
		return "development"
	}
	return none
}

func tomlValue(value string) string {
	if v := tomlVersion.FindStringSubmatch(value); v != nil {
		return v[1]
	}
	if value != "" && (value[0] == '"' || value[0] == '\'') {
		if s := tomlString.FindStringSubmatch(value); s != nil {
			return s[1] + s[2]
		}
	}
	return ""
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i > 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

var requirement = regexp.MustCompile(`^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?\s*([^;#]*)`)

func (m *manifest) addRequirement(line, use string) {
	if r := requirement.FindStringSubmatch(strings.TrimSpace(line)); r != nil {
		m.add(r[1], r[2], use)
	}
}
