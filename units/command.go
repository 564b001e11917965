package units

import "strings"

// splitCommand splits a command line by the quoting rules of a POSIX shell and
// nothing else of it: no variables, no globs, no comments, no operators. 'a' is
// literal, in "b" a backslash quotes $ ` " \ and the end of a line, outside quotes
// it quotes any character.
func splitCommand(s string) ([]string, *fault) {
	var (
		words []string
		word  strings.Builder
		begun bool // a word has begun, though it may be empty
		quote byte // the open quote, or 0
	)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == 0:
			return nil, wrong("a NUL byte")
		case quote == '\'' && c == '\'', quote == '"' && c == '"':
			quote = 0
		case quote == '\'':
			word.WriteByte(c)
		case c == '\\' && i+1 == len(s):
			return nil, wrong("a backslash at the end quotes nothing")
		case c == '\\' && quote == '"' && strings.IndexByte("$`\"\\\n", s[i+1]) < 0:
			word.WriteByte(c)
		case c == '\\':
			if i++; s[i] != '\n' { // a quoted end of line is none
				word.WriteByte(s[i])
				begun = true
			}
		case quote == '"':
			word.WriteByte(c)
		case c == '\'' || c == '"':
			quote, begun = c, true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			if begun {
				words = append(words, word.String())
				word.Reset()
			}
			begun = false
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	if quote != 0 {
		return nil, wrong("the quote %c has no partner", quote).write("an array if the command is complicated")
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}

// SplitCommand splits a command line as exec does: a shell's quotes and
// backslashes, and nothing else of a shell.
func SplitCommand(line string) ([]string, error) {
	words, f := splitCommand(line)
	if f != nil {
		return nil, f
	}
	return words, nil
}

// forShell is the first thing in a command that splitCommand takes, outside of quotes, that
// a shell would understand and sockd gives to the program as it is; "" if there is none.
func forShell(s string) string {
	var quote byte // the open quote, or 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && quote != '\'':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case strings.IndexByte("|&;<>*`", c) >= 0:
			return s[i : i+1]
		case c == '$' && i+1 < len(s) && (isVariable(s[i+1:i+2]) || s[i+1] == '{' || s[i+1] == '('):
			return "$"
		}
	}
	return ""
}
