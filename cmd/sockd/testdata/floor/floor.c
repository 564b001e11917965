// The floor beside which sockd is measured: the least that a supervisor can do. It binds N sockets, prints their ports,
// polls them, starts the program by a vfork whose child writes its own pid into LISTEN_PID, waits, and polls again.
//
//	floor demand|always N CGROUPS PROGRAM [ARG…]
//
// demand: a connection starts a program, and also after it was killed. always: N programs at once, without sockets, each
// started again when it ends. CGROUPS is a folder with cgroups 0 … N-1 to be born in, or -.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char listen_pid[32] = "LISTEN_PID=", *environment[8] = {"LISTEN_FDS=1", listen_pid};
static int *sockets, *cgroups;
static pid_t *pids;
static sigset_t none;

// born is vfork(2), into a cgroup if there is one. It must not return in the child.
static inline __attribute__((always_inline)) long born(int cgroup) {
	static struct clone_args a;
	a.flags = CLONE_VM | CLONE_VFORK | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0);
	a.exit_signal = SIGCHLD;
	a.cgroup = cgroup >= 0 ? cgroup : 0;
	long r;
#if defined(__x86_64__)
	__asm__ volatile("syscall" : "=a"(r) : "0"(SYS_clone3), "D"(&a), "S"(sizeof a) : "rcx", "r11", "memory");
#else
	register long x8 __asm__("x8") = SYS_clone3, x1 __asm__("x1") = sizeof a;
	register struct clone_args *x0 __asm__("x0") = &a;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1) : "memory");
	r = (long)x0;
#endif
	return r;
}

static void start(int i, char **argv) {
	long pid = born(cgroups[i]);
	if (pid == 0) {
		if (sockets[i] >= 0)
			dup2(sockets[i], 3);
		sprintf(listen_pid + 11, "%d", getpid());
		sigprocmask(SIG_SETMASK, &none, NULL);
		execve(argv[0], argv, environment);
		_exit(127);
	}
	pids[i] = pid;
}

int main(int argc, char **argv) {
	int always = argv[1][0] == 'a', n = atoi(argv[2]), ep = epoll_create1(EPOLL_CLOEXEC);
	char **program = argv + 4, text[256];
	sigset_t chld;
	sigemptyset(&none);
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	int sig = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = (uint64_t)-1};
	epoll_ctl(ep, EPOLL_CTL_ADD, sig, &ev);
	if (getenv("BENCH")) {
		environment[2] = malloc(200);
		snprintf(environment[2], 200, "BENCH=%s", getenv("BENCH"));
	}
	sockets = malloc(n * sizeof *sockets), cgroups = malloc(n * sizeof *cgroups), pids = calloc(n, sizeof *pids);
	for (int i = 0; i < n; i++) {
		sockets[i] = cgroups[i] = -1;
		if (argv[3][0] != '-') {
			snprintf(text, sizeof text, "%s/%d", argv[3], i);
			cgroups[i] = open(text, O_PATH | O_DIRECTORY | O_CLOEXEC);
			if (cgroups[i] < 0)
				return 3;
		}
		if (always)
			continue;
		struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		socklen_t size = sizeof at;
		int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (bind(s, (void *)&at, size) || listen(s, 4096) || getsockname(s, (void *)&at, &size))
			return 1;
		sockets[i] = fcntl(s, F_DUPFD_CLOEXEC, 10);
		close(s);
		ev = (struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data.u64 = i};
		epoll_ctl(ep, EPOLL_CTL_ADD, sockets[i], &ev);
		printf("%d\n", ntohs(at.sin_port));
	}
	puts("up");
	fflush(stdout);
	for (int i = 0; always && i < n; i++)
		start(i, program);
	for (;;) {
		struct epoll_event got[64];
		int k = epoll_wait(ep, got, 64, -1);
		for (int j = 0; j < k; j++) {
			if (got[j].data.u64 != (uint64_t)-1) {
				start(got[j].data.u64, program);
				continue;
			}
			struct signalfd_siginfo si[16];
			while (read(sig, si, sizeof si) > 0)
				;
			for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) > 0;) {
				for (int i = 0; i < n; i++) {
					if (pids[i] != pid)
						continue;
					pids[i] = 0;
					if (always) {
						start(i, program);
					} else {
						ev = (struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data.u64 = i};
						epoll_ctl(ep, EPOLL_CTL_MOD, sockets[i], &ev);
					}
					break;
				}
			}
		}
	}
}
