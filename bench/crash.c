/* Kills a server and waits for its successor.
 *
 * usage: crash PORT PID LIMIT_MS [PAUSE_US]
 * Sends SIGKILL to PID (0: to nobody), then asks 127.0.0.1:PORT until an answer names another
 * pid; pauses PAUSE_US (default 50) or 1/500 of the time passed, whichever is longer, after each
 * attempt that failed. Prints
 * "ns-to-answer new-pid failed-attempts", or "-1 0 attempts" when LIMIT_MS has passed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int ask(int port, int64_t left_ns) { /* pid of the server that answered, or -1 */
    static const char request[] = "GET / HTTP/1.1\r\nHost: bench\r\n\r\n";
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval wait = {left_ns / 1000000000, left_ns / 1000 % 1000000 + 1};
    char buf[512];
    int len = 0, pid = -1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
    if (!connect(fd, (struct sockaddr *)&a, sizeof a) &&
        send(fd, request, sizeof request - 1, MSG_NOSIGNAL) > 0) {
        for (;;) {
            int n = recv(fd, buf + len, sizeof buf - 1 - len, 0);
            if (n <= 0) break;
            len += n;
            buf[len] = 0;
            char *body = strstr(buf, "\r\n\r\n");
            if (body && strchr(body + 4, '\n')) {
                pid = atoi(body + 4);
                break;
            }
        }
    }
    close(fd);
    return pid;
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    int port = atoi(argv[1]), old = atoi(argv[2]), attempts = 0;
    int64_t limit_ns = atoll(argv[3]) * 1000000;
    int64_t pause_ns = (argc > 4 ? atol(argv[4]) : 50) * 1000;
    struct timespec nap = {0, 0};
    prctl(PR_SET_TIMERSLACK, 1000UL);
    int64_t start = now_ns();
    if (old > 0 && kill(old, SIGKILL)) {
        perror("kill");
        return 1;
    }
    for (;;) {
        int64_t left_ns = limit_ns - (now_ns() - start);
        if (left_ns <= 0) break;
        int pid = ask(port, left_ns);
        if (pid > 0 && pid != old) {
            printf("%lld %d %d\n", (long long)(now_ns() - start), pid, attempts);
            return 0;
        }
        attempts++;
        /* A long wait need not be measured to 50 us: leave the CPU to those who work. */
        int64_t rest_ns = (now_ns() - start) / 500;
        nap.tv_nsec = rest_ns < pause_ns ? pause_ns : rest_ns > 5000000 ? 5000000 : rest_ns;
        nanosleep(&nap, NULL);
    }
    printf("-1 0 %d\n", attempts);
    return 0;
}
