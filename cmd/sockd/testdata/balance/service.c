// A service of the balance benchmark: it starts slowly, answers each connection with "INSTANCE PID\n", and at SIGTERM
// finishes the one that it has and leaves.
//
//	service MILLISECONDS              on descriptor 3 (or where Server::Starter says)
//	service MILLISECONDS PORT         binds 127.0.0.1:PORT by itself, with SO_REUSEPORT
//	service MILLISECONDS PORT drain   … and accepts until nobody waits before it leaves
//
// It is ready when it says so: READY=1 to NOTIFY_SOCKET, else a byte on standard output.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int own(int port) {
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int on = 1, s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(s, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(s, (void *)&a, sizeof a) || listen(s, 4096))
		exit(1);
	return s;
}

static void ready(void) {
	const char *path = getenv("NOTIFY_SOCKET");
	if (!path) {
		if (write(1, "r", 1) != 1)
			exit(2);
		return;
	}
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int n = snprintf(to.sun_path, sizeof to.sun_path, "%s", path), s = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (to.sun_path[0] == '@')
		to.sun_path[0] = 0;
	if (sendto(s, "READY=1", 7, 0, (void *)&to, offsetof(struct sockaddr_un, sun_path) + n) != 7)
		exit(3);
	close(s);
}

// answer serves one connection, if there is one.
static int answer(int s, const char *text, int n) {
	int c = accept4(s, NULL, NULL, SOCK_CLOEXEC);
	if (c < 0)
		return 0;
	if (send(c, text, n, MSG_NOSIGNAL) < 0)
		n = 0; // it has gone
	close(c);
	return 1;
}

int main(int argc, char **argv) {
	const char *instance = getenv("SOCKD_INSTANCE"), *starter = getenv("SERVER_STARTER_PORT");
	char text[32];
	int n = snprintf(text, sizeof text, "%s %d\n", instance ? instance : "0", getpid());
	sigset_t term;
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	struct pollfd p[2] = {{3, POLLIN, 0}, {signalfd(-1, &term, SFD_CLOEXEC), POLLIN, 0}};
	if (starter)
		p[0].fd = atoi(strchr(starter, '=') + 1);
	poll(&p[1], 1, argc > 1 ? atoi(argv[1]) : 0); // starts
	if (argc > 2)
		p[0].fd = own(atoi(argv[2]));
	fcntl(p[0].fd, F_SETFL, O_NONBLOCK); // another process may take what poll has seen
	ready();
	while (!(p[1].revents & POLLIN)) {
		poll(p, 2, -1);
		if (p[0].revents)
			answer(p[0].fd, text, n);
	}
	while (argc > 3 && answer(p[0].fd, text, n))
		;
	return 0;
}
