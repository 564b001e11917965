// A service of the benchmarks: static, so that its start costs little beside a supervisor's work. It answers each
// connection on descriptor 3 with its pid and a newline; with "once" it answers one and ends; with "-" it has no socket.
// With BENCH set it first says its pid to that abstract datagram socket.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv) {
	char text[16];
	int n = sprintf(text, "%d\n", getpid());
	const char *mode = argc > 1 ? argv[1] : "", *bench = getenv("BENCH");
	if (bench) {
		struct sockaddr_un to = {.sun_family = AF_UNIX};
		int s = socket(AF_UNIX, SOCK_DGRAM, 0);
		strncpy(to.sun_path + 1, bench, sizeof to.sun_path - 2);
		sendto(s, text, n, 0, (void *)&to, sizeof(sa_family_t) + 1 + strlen(bench));
		close(s);
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
