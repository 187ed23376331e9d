package clawctl

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/internal/policy"
)

func (c *cli) policyTestCommand() *cobra.Command {
	var casesFile, orgFile, projectFile string
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Run a table of cases against policy documents, without a server",
		Long: `Run a table of cases against policy documents, without a server. It fails if a
case is decided in another way than expected.

  cases:
    - name: reviewers cannot submit
      user: local:ann
      roles: [readonly]
      permission: task:submit
      expect: denied
      layer: permission`,
		Example: "  clawctl policy test -f cases.yaml --org security.yaml --project-policy " + projectPolicy,
		Args:    none,
		RunE: func(*cobra.Command, []string) error {
			if casesFile == "" {
				return usagef("policy test needs the file (-f) of the cases")
			}
			text, err := c.readText(casesFile)
			if err != nil {
				return err
			}
			cases, err := policy.ParseCases([]byte(text), casesFile)
			if err != nil {
				return err
			}
			org, err := c.readDocument(orgFile, policy.Organization)
			if err != nil {
				return err
			}
			project, err := c.readDocument(projectFile, policy.Project)
			if err != nil {
				return err
			}
			p, err := policy.Compile(org, project, policy.Options{})
			if err != nil {
				return err
			}
			return c.reportCases(len(cases), policy.RunCases(p, cases))
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&casesFile, "file", "f", "", "the `file` of the cases; - is standard input")
	flags.StringVar(&orgFile, "org", "", "the `file` of the organisation's document (default none)")
	flags.StringVar(&projectFile, "project-policy", "", "the `file` of the project's document (default none)")
	return cmd
}

// readDocument returns no document for no file.
func (c *cli) readDocument(file string, kind policy.Kind) (*policy.Document, error) {
	if file == "" {
		return nil, nil
	}
	text, err := c.readText(file)
	if err != nil {
		return nil, err
	}
	return policy.ParseDocument([]byte(text), file, kind)
}

// caseFailure is how a failed case is printed as a document.
type caseFailure struct {
	Name    string `json:"name"`
	Place   string `json:"place"`
	Message string `json:"message"`
	Layer   string `json:"layer,omitempty"`
	Rule    string `json:"rule,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

func (c *cli) reportCases(n int, failures []policy.Failure) error {
	result := struct {
		Cases    int           `json:"cases"`
		Failures []caseFailure `json:"failures"`
	}{n, []caseFailure{}}
	for _, f := range failures {
		result.Failures = append(result.Failures, caseFailure{
			Name: f.Case.Name, Place: f.Case.Place, Message: f.Message,
			Layer: string(f.Decision.Layer), Rule: f.Decision.Rule, Reason: f.Decision.Reason,
		})
	}
	err := c.print(result, func() {
		for _, f := range result.Failures {
			c.out.printf("%s %s: %s: %s\n", c.out.style(red, "FAIL"), cleanLine(f.Place), cleanLine(f.Name), cleanLine(f.Message))
		}
		c.out.printf("%d of %d cases are decided as expected\n", n-len(failures), n)
	})
	if err == nil && len(failures) > 0 {
		return exitError(exitFailed)
	}
	return err
}

// maxText bounds what is read of a document; the server takes less.
const maxText = 1 << 20

// readText reads a file, or standard input for "-".
func (c *cli) readText(file string) (string, error) {
	in := c.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxText+1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", file, err)
	}
	if len(data) > maxText {
		return "", fmt.Errorf("read %s: there is more than %d KiB", file, maxText>>10)
	}
	return string(data), nil
}
