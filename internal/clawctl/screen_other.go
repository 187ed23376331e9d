//go:build !windows

package clawctl

import "os"

// understandsSequences reports whether the terminal acts on escape sequences.
func understandsSequences(*os.File) bool { return true }
