/* Tiny HTTP server of the benchmarks: every answer carries the server's pid.
 *
 * usage: server [--port N | --fd N] [--delay-ms N] [--pidfile F] [--accept-log F]
 *
 * Without --port and --fd it takes descriptor 3 when LISTEN_FDS is set, else the port in PORT.
 * "/slow?ms=N" answers after N ms, every other path at once. --delay-ms sleeps before the socket
 * is opened (a slow start). --accept-log appends "pid ns client-port" for each accepted
 * connection, with write(2), so that the record survives kill -9.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 4096
#define BUF_SIZE 1024

struct conn {
    int open, len;
    int64_t due_ns; /* 0: the request is still being read */
    char buf[BUF_SIZE];
};

static struct conn conns[MAX_FD];
static char reply[128];
static int reply_len, slow_count, top_fd;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int own_listener(int port) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a)) die("bind");
    if (listen(fd, 4096)) die("listen");
    return fd;
}

static void hang_up(int fd) {
    if (conns[fd].due_ns) slow_count--;
    conns[fd].open = 0;
    conns[fd].due_ns = 0;
    close(fd);
}

static void answer(int fd) {
    if (write(fd, reply, reply_len) < 0) { /* the client has gone: nothing to do */
    }
    hang_up(fd);
}

static void readable(int fd) {
    struct conn *c = &conns[fd];
    int n = read(fd, c->buf + c->len, BUF_SIZE - 1 - c->len);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        hang_up(fd);
        return;
    }
    c->len += n;
    c->buf[c->len] = 0;
    if (c->due_ns) return;
    if (!strstr(c->buf, "\r\n\r\n") && c->len < BUF_SIZE - 1) return;
    if (strncmp(c->buf, "GET /slow?ms=", 13) == 0) {
        c->due_ns = now_ns() + atoll(c->buf + 13) * 1000000;
        slow_count++;
        return;
    }
    answer(fd);
}

static void accept_all(int listener, int epoll, int log) {
    for (int i = 0; i < 64; i++) {
        struct sockaddr_in peer;
        socklen_t size = sizeof peer;
        int fd = accept4(listener, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        if (fd >= MAX_FD) {
            close(fd);
            continue;
        }
        if (log >= 0) {
            char line[64];
            int n = snprintf(line, sizeof line, "%d %lld %d\n", getpid(), (long long)now_ns(),
                             ntohs(peer.sin_port));
            if (write(log, line, n) < 0) die("accept log");
        }
        conns[fd].open = 1;
        conns[fd].len = 0;
        conns[fd].due_ns = 0;
        if (fd > top_fd) top_fd = fd;
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
    }
}

static int answer_due(void) { /* returns the time until the next one is due, in ms */
    int64_t now = now_ns(), next = INT64_MAX;
    if (!slow_count) return -1;
    for (int fd = 0; fd <= top_fd; fd++) {
        if (!conns[fd].open || !conns[fd].due_ns) continue;
        if (conns[fd].due_ns <= now) answer(fd);
        else if (conns[fd].due_ns < next) next = conns[fd].due_ns;
    }
    return next == INT64_MAX ? -1 : (int)((next - now) / 1000000) + 1;
}

int main(int argc, char **argv) {
    int port = 0, listener = -1, delay_ms = 0, log = -1;
    const char *pidfile = NULL, *port_env = getenv("PORT");
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--port")) port = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--fd")) listener = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--delay-ms")) delay_ms = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--pidfile")) pidfile = argv[i + 1];
        else if (!strcmp(argv[i], "--accept-log"))
            log = open(argv[i + 1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    }
    if (delay_ms) {
        struct timespec t = {delay_ms / 1000, (delay_ms % 1000) * 1000000L};
        nanosleep(&t, NULL);
    }
    if (listener < 0 && !port && getenv("LISTEN_FDS")) listener = 3;
    if (listener < 0 && !port && port_env) port = atoi(port_env);
    if (listener < 0) listener = own_listener(port);
    fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) | O_NONBLOCK);
    if (pidfile) {
        FILE *f = fopen(pidfile, "w");
        if (!f) die("pidfile");
        fprintf(f, "%d\n", getpid());
        fclose(f);
    }
    char body[16];
    int body_len = snprintf(body, sizeof body, "%d\n", getpid());
    reply_len = snprintf(reply, sizeof reply,
                         "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
                         body_len, body);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, events[64];
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e)) die("epoll_ctl");
    for (;;) {
        int n = epoll_wait(epoll, events, 64, answer_due());
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) accept_all(listener, epoll, log);
            else if (conns[fd].open) readable(fd);
        }
    }
}
