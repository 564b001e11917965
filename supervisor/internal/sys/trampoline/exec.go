package trampoline

import "syscall"

// defaultPath is where programs are looked up if Env sets no PATH; what execvp(3) does.
const defaultPath = "/bin:/usr/bin"

// execute becomes the program, or says what could not be executed and why. The
// rules are those of execvp(3), but for one: a script without a first line that
// names its interpreter is an error, and not handed to a shell.
func execute(argv, env []string) (what string, err syscall.Errno) {
	name := argv[0]
	if hasSlash(name) {
		return missing(name, errno(syscall.Exec(name, argv, env)))
	}
	denied := false
	for path := searchPath(env); ; {
		dir, rest, more := cut(path)
		file := name // an empty element is the current directory
		if dir != "" {
			file = dir + "/" + name
		}
		switch err := errno(syscall.Exec(file, argv, env)); err {
		case syscall.EACCES:
			denied = true // but a later directory may have one we can run
		case syscall.ENOENT:
			if exists(file) {
				return missing(file, err)
			}
		case syscall.ENOTDIR, syscall.ENODEV, syscall.ESTALE, syscall.ETIMEDOUT:
		default:
			return file, err
		}
		if !more {
			break
		}
		path = rest
	}
	if denied {
		return name, syscall.EACCES
	}
	return name + " in PATH", syscall.ENOENT
}

// missing explains the most puzzling of messages: "no such file" for a file that is there.
func missing(file string, err syscall.Errno) (string, syscall.Errno) {
	if err == syscall.ENOENT && exists(file) {
		return file + ": its interpreter or loader", err
	}
	return file, err
}

func exists(file string) bool {
	var st syscall.Stat_t
	return syscall.Stat(file, &st) == nil
}

func searchPath(env []string) string {
	path := defaultPath
	for _, kv := range env {
		if len(kv) >= 5 && kv[:5] == "PATH=" {
			path = kv[5:] // later ones win, as in the program itself with most libraries
		}
	}
	return path
}

// cut splits s at its first colon.
func cut(s string) (before, after string, found bool) {
	for i := range len(s) {
		if s[i] == ':' {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

func hasSlash(s string) bool {
	for i := range len(s) {
		if s[i] == '/' {
			return true
		}
	}
	return false
}
