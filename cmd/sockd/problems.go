package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/sockd/sockd/units"
)

// problems makes the error of reading units for a start: all of them, a line each.
func problems(err error) error { return printProblems(err, "; nothing was started") }

// problemsFound does the same for a check.
func problemsFound(err error) error { return printProblems(err, "") }

// problemsOfFlags says what is wrong with a unit that came from flags: its lines
// are nowhere for the reader to look at, so only keys and texts are said.
func problemsOfFlags(err error) error {
	var all units.Problems
	if !errors.As(err, &all) {
		return err
	}
	for _, p := range all {
		p.File, p.Line, p.Col = "", 0, 0
		fmt.Fprintln(os.Stderr, "sockd: "+p.Error())
	}
	return &exitError{code: exitMisuse}
}

func printProblems(err error, consequence string) error {
	var all units.Problems
	if !errors.As(err, &all) {
		return err
	}
	for _, p := range all {
		fmt.Fprintln(os.Stderr, p.Error())
	}
	return &exitError{code: exitFailed, text: count(len(all), "problem") + consequence}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
