package executor

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coderclaw/runtime/api"
)

// known are the programs that speak the Agent Client Protocol, in the order in
// which one is taken, with the variables that they find their model and its key
// by. Goose comes last: others have given that name to other programs.
var known = []api.Process{
	{Command: []string{"claude-agent-acp"}, Environment: claudeVariables},
	{Command: []string{"claude-code-acp"}, Environment: claudeVariables},
	{Command: []string{"codex-acp"}, Environment: []string{"OPENAI_API_KEY", "OPENAI_BASE_URL", "CODEX_API_KEY", "CODEX_HOME"}},
	{Command: []string{"gemini", "--experimental-acp"}, Environment: []string{"GEMINI_API_KEY", "GEMINI_MODEL", "GOOGLE_API_KEY", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "GOOGLE_GENAI_USE_VERTEXAI"}},
	{Command: []string{"opencode", "acp"}, Environment: []string{"ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY", "OPENCODE_CONFIG"}},
	{Command: []string{"goose", "acp"}, Environment: []string{"GOOSE_PROVIDER", "GOOSE_MODEL", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GOOGLE_API_KEY", "OPENROUTER_API_KEY"}},
}

var claudeVariables = []string{"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR"}

// FindACP returns the commands of the agents on this machine that speak the
// Agent Client Protocol, the one to prefer first. A command line, of words
// between spaces, is taken instead if it is not empty; "none" means none. What
// it finds need not work: nothing is started.
func FindACP(commandLine string) []api.Process {
	if words := strings.Fields(commandLine); len(words) > 0 {
		if len(words) == 1 && words[0] == "none" {
			return nil
		}
		p := api.Process{Command: words}
		for _, k := range known {
			if k.Command[0] == filepath.Base(words[0]) {
				p.Environment = k.Environment
			}
		}
		return []api.Process{p}
	}
	return slices.DeleteFunc(slices.Clone(known), func(p api.Process) bool {
		_, err := exec.LookPath(p.Command[0])
		return err != nil
	})
}
