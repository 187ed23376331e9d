package clawctl

import (
	"os"

	"golang.org/x/sys/windows"
)

// understandsSequences reports whether the console acts on escape sequences,
// which it must be asked to do.
func understandsSequences(f *os.File) bool {
	console := windows.Handle(f.Fd())
	var mode uint32
	if windows.GetConsoleMode(console, &mode) != nil {
		return false
	}
	return windows.SetConsoleMode(console, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
