/* Runs a command and reaps what it orphans, as a good init does.
 *
 * usage: reaper COMMAND [ARG...]
 * Monit's services are orphans; where pid 1 is slow to reap, their zombies would count against it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t child;

static void forward(int number) {
    if (child > 0) kill(child, number);
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    struct sigaction action = {.sa_handler = forward};
    prctl(PR_SET_CHILD_SUBREAPER, 1UL);
    pid_t pid = fork();
    if (pid == 0) {
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    if (pid < 0) return 1;
    child = pid;
    sigaction(SIGTERM, &action, NULL);
    for (;;) {
        pid_t ended = waitpid(-1, NULL, 0);
        if (ended == pid) return 0;
        if (ended < 0 && errno != EINTR) return 1;
    }
}
