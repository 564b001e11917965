// A service of the benchmarks: static, so that its start costs little beside a supervisor's work. It answers each
// connection on descriptor 3 with its pid and a newline; with "once" it answers one and ends; with "-" it has no socket.
// With BENCH set it first writes its pid into that FIFO.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
	char text[16];
	int n = sprintf(text, "%d\n", getpid());
	const char *mode = argc > 1 ? argv[1] : "", *bench = getenv("BENCH");
	if (bench) {
		int fd = open(bench, O_WRONLY);
		if (fd < 0 || write(fd, text, n) != n)
			return 3;
		close(fd);
	}
	if (mode[0] == '-')
		for (;;)
			pause();
	for (;;) {
		int c = accept(3, NULL, NULL);
		if (c < 0)
			return 1;
		if (write(c, text, n) != n)
			return 2;
		close(c);
		if (mode[0])
			return 0;
	}
}
