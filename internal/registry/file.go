package registry

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/coderclaw/runtime/internal/strictyaml"
)

const maxFileBytes = 256 << 10

// agentsFile is the form of agents.yaml.
type agentsFile struct {
	Agents []definition `yaml:"agents"`
}

// LoadAgents reads an operator's agents.yaml, whose agents may have built-in
// skills. No file means no agents. All faults in it are reported, each as
// file:line:column: message.
func LoadAgents(filename string) ([]Agent, error) {
	var file agentsFile
	doc, err := strictyaml.ReadFile(filename, maxFileBytes, &file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read agents: %w", err)
	}
	return file.agents(doc, SourceFile)
}

// agents checks and returns what doc was decoded into.
func (f *agentsFile) agents(doc *strictyaml.Document, source Source) ([]Agent, error) {
	// A value that could not be read would be refused once more for being
	// absent.
	if err := doc.Err(); err != nil {
		return nil, err
	}
	defined := map[string]bool{}
	agents := make([]Agent, len(f.Agents))
	for i := range f.Agents {
		d := &f.Agents[i]
		d.check(builtinSkills().byID, func(value any, path, message string) {
			if !doc.Has(value) {
				value = d
			}
			doc.Refuse(value, "%s %s", path, message)
		})
		if defined[d.ID] {
			doc.Refuse(&d.ID, "id %s is defined twice", d.ID)
		}
		defined[d.ID] = true
		agents[i] = d.agent(source)
	}
	return agents, doc.Err()
}

var (
	//go:embed builtin/agents.yaml
	builtinAgentsYAML []byte
	//go:embed builtin/skills.yaml
	builtinSkillsYAML []byte
)

// builtinAgents panics if the file in the binary is faulty, which a test
// excludes, as does builtinSkills.
var builtinAgents = sync.OnceValue(func() []Agent {
	var file agentsFile
	doc := strictyaml.Decode("builtin/agents.yaml", builtinAgentsYAML, maxFileBytes, &file)
	agents, err := file.agents(doc, SourceBuiltin)
	if err != nil {
		panic(err)
	}
	return agents
})

var builtinSkills = sync.OnceValue(func() set[Skill] {
	var file struct {
		Skills []skillDefinition `yaml:"skills"`
	}
	if err := strictyaml.Decode("builtin/skills.yaml", builtinSkillsYAML, maxFileBytes, &file).Err(); err != nil {
		panic(err)
	}
	byID := map[string]Skill{}
	for _, s := range file.Skills {
		byID[s.ID] = s.skill()
	}
	return newSet(byID)
})
