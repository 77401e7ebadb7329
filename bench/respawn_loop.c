/* The floor under every supervisor: fork, exec, wait, again.
 *
 * usage: respawn_loop COMMAND [ARG...] -- ends its child and itself on SIGTERM. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t child;

static void stop(int number) {
    (void)number;
    if (child > 0) kill(child, SIGKILL);
    _exit(0);
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    struct sigaction action = {.sa_handler = stop};
    sigset_t term, old;
    sigaction(SIGTERM, &action, NULL);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    for (;;) {
        sigprocmask(SIG_BLOCK, &term, &old); /* no SIGTERM between fork and knowing the pid */
        pid_t pid = fork();
        if (pid == 0) {
            signal(SIGTERM, SIG_DFL);
            sigprocmask(SIG_SETMASK, &old, NULL);
            execv(argv[1], argv + 1);
            _exit(127);
        }
        child = pid;
        sigprocmask(SIG_SETMASK, &old, NULL);
        if (pid < 0) return 1;
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
}
