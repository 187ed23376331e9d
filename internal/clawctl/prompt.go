package clawctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// maxAnswer bounds what is read as the answer to a question.
const maxAnswer = 4 << 10

// password asks for a password without showing it, twice if it is a new one, or
// reads it as the first line of standard input.
func (c *cli) password(ctx context.Context, question string, fromStdin, isNew bool) (string, error) {
	if fromStdin {
		return c.firstLine()
	}
	first, err := c.hidden(ctx, question)
	if err != nil || !isNew {
		return first, err
	}
	second, err := c.hidden(ctx, "Once more: ")
	if err == nil && first != second {
		err = errors.New("these are two different passwords")
	}
	return first, err
}

func (c *cli) firstLine() (string, error) {
	line, err := bufio.NewReader(io.LimitReader(c.stdin, maxAnswer)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read standard input: %w", err)
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", errors.New("standard input holds no password")
	}
	return line, nil
}

// terminalIn returns the terminal that the person types at, or nil.
func (c *cli) terminalIn() *os.File {
	if f, ok := c.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

func (c *cli) ask(ctx context.Context, question string) (string, error) {
	in := c.terminalIn()
	if in == nil {
		return "", usagef("there is no terminal to ask at: use --user and --password-stdin")
	}
	c.err.printf("%s", question)
	return await(ctx, func() (string, error) {
		line, err := bufio.NewReaderSize(in, 1).ReadString('\n')
		return strings.TrimSpace(line), err
	})
}

// hidden asks for what should not be seen. A person who gives up gets their
// terminal back as it was.
func (c *cli) hidden(ctx context.Context, question string) (string, error) {
	in := c.terminalIn()
	if in == nil {
		return "", usagef("there is no terminal to ask at: use --password-stdin")
	}
	fd := int(in.Fd())
	// Whoever types fast may begin as soon as the question is there: nothing is
	// shown any more by then. ReadPassword takes over from there.
	before, err := term.MakeRaw(fd)
	if err != nil {
		return "", fmt.Errorf("ask for a password: %w", err)
	}
	c.err.printf("%s", question)
	answer, err := await(ctx, func() (string, error) {
		line, err := term.ReadPassword(fd)
		return string(line), err
	})
	term.Restore(fd, before) //nolint:errcheck // there is nothing else to be done
	c.err.printf("\n")
	return answer, err
}

// await waits for an answer until ctx ends: a read from a terminal cannot be
// interrupted, and ends with the process.
func await(ctx context.Context, read func() (string, error)) (string, error) {
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		text, err := read()
		answers <- answer{text, err}
	}()
	select {
	case a := <-answers:
		if a.err != nil {
			return "", fmt.Errorf("read the answer: %w", a.err)
		}
		return a.text, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
