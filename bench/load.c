/* Open-loop load: one new connection at each scheduled instant, whatever became of the others.
 *
 * usage: load PORT RATE DURATION_MS TIMEOUT_MS OUTFILE [PATH]
 * Prints "start NS" (CLOCK_MONOTONIC) as it starts. OUTFILE gets a line for each connection:
 * "scheduled connected ended outcome pid client-port", times in ns, 0 where it did not happen;
 * outcome is ok, refused, reset, eof (closed without an answer), timeout or error.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNS 200000
#define MAX_FD 65536

struct conn {
    int64_t scheduled, connected, ended;
    const char *outcome;
    int pid, port, fd, len;
    char buf[256];
};

static struct conn *conns;
static int by_fd[MAX_FD], epoll, open_count;
static char request[256];
static int request_len;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void end(struct conn *c, const char *outcome) {
    c->ended = now_ns();
    c->outcome = outcome;
    if (c->fd >= 0) {
        close(c->fd);
        open_count--;
    }
    c->fd = -1;
}

static void end_errno(struct conn *c, int error) {
    if (error == ECONNREFUSED) end(c, "refused");
    else if (error == ECONNRESET || error == EPIPE) end(c, "reset");
    else if (error == ETIMEDOUT) end(c, "timeout");
    else end(c, "error");
}

static void connected(struct conn *c) {
    struct sockaddr_in me;
    socklen_t size = sizeof me;
    c->connected = now_ns();
    if (!getsockname(c->fd, (struct sockaddr *)&me, &size)) c->port = ntohs(me.sin_port);
    if (send(c->fd, request, request_len, MSG_NOSIGNAL) < 0) end_errno(c, errno);
}

static void begin(struct conn *c, int index, int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || c->fd >= MAX_FD) {
        if (c->fd >= 0) close(c->fd);
        c->fd = -1;
        end(c, "error");
        return;
    }
    open_count++;
    by_fd[c->fd] = index;
    int done = connect(c->fd, (struct sockaddr *)&a, sizeof a);
    if (done && errno != EINPROGRESS) {
        end_errno(c, errno);
        return;
    }
    struct epoll_event e = {.events = EPOLLIN | (done ? EPOLLOUT : 0), .data.fd = c->fd};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e);
    if (!done) connected(c);
}

static void step(struct conn *c, unsigned events) {
    if (!c->connected) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            end_errno(c, error);
            return;
        }
        if (!(events & EPOLLOUT)) return;
        struct epoll_event e = {.events = EPOLLIN, .data.fd = c->fd};
        epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &e);
        connected(c);
        return;
    }
    int n = recv(c->fd, c->buf + c->len, sizeof c->buf - 1 - c->len, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        if (n < 0) end_errno(c, errno);
        else end(c, "eof");
        return;
    }
    c->len += n;
    c->buf[c->len] = 0;
    char *body = strstr(c->buf, "\r\n\r\n");
    if (body && strchr(body + 4, '\n')) {
        c->pid = atoi(body + 4);
        end(c, "ok");
    }
}

int main(int argc, char **argv) {
    if (argc < 6) return 2;
    int port = atoi(argv[1]), rate = atoi(argv[2]);
    int total = (int)((int64_t)rate * atoi(argv[3]) / 1000), sent = 0, oldest = 0;
    int64_t timeout_ns = atoll(argv[4]) * 1000000;
    struct rlimit files;
    struct epoll_event events[256];
    if (total < 1 || total > MAX_CONNS) return 2;
    request_len = snprintf(request, sizeof request, "GET %.128s HTTP/1.1\r\nHost: bench\r\n\r\n",
                           argc > 6 ? argv[6] : "/");
    FILE *out = fopen(argv[5], "w");
    if (!out) return 1;
    conns = calloc(total, sizeof *conns);
    if (!conns) return 1;
    memset(conns, 0, total * sizeof *conns); /* touch the pages now, not under load */
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max < MAX_FD ? files.rlim_max : MAX_FD;
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_TIMERSLACK, 1000UL);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int64_t start = now_ns() + 20000000;
    printf("start %lld\n", (long long)start);
    fflush(stdout);
    for (int i = 0; i < total; i++) {
        conns[i].scheduled = start + (int64_t)i * 1000000000 / rate;
        conns[i].fd = -1;
    }
    while (sent < total || open_count) {
        int64_t now = now_ns();
        while (sent < total && conns[sent].scheduled <= now) {
            begin(&conns[sent], sent, port);
            sent++;
            now = now_ns();
        }
        while (oldest < sent) { /* scheduled in order, so they expire in order */
            struct conn *c = &conns[oldest];
            if (c->fd >= 0) {
                if (now - c->scheduled < timeout_ns) break;
                end(c, "timeout");
            }
            oldest++;
        }
        int64_t wait_ns = 20000000;
        if (sent < total && conns[sent].scheduled - now < wait_ns)
            wait_ns = conns[sent].scheduled - now;
        if (wait_ns < 0) wait_ns = 0;
        struct timespec wait = {0, wait_ns};
        int n = epoll_pwait2(epoll, events, 256, &wait, NULL);
        for (int i = 0; i < n; i++) {
            struct conn *c = &conns[by_fd[events[i].data.fd]];
            if (c->fd == events[i].data.fd) step(c, events[i].events);
        }
    }
    for (int i = 0; i < total; i++)
        fprintf(out, "%lld %lld %lld %s %d %d\n", (long long)conns[i].scheduled,
                (long long)conns[i].connected, (long long)conns[i].ended, conns[i].outcome,
                conns[i].pid, conns[i].port);
    return fclose(out) ? 1 : 0;
}
