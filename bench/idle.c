/* A process that does nothing.
 *
 * usage: idle [FIFO [PIDFILE]] -- writes one byte to FIFO once it runs, and its pid to PIDFILE. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc > 2) {
        FILE *file = fopen(argv[2], "w");
        if (!file) return 1;
        fprintf(file, "%d\n", getpid());
        fclose(file);
    }
    if (argc > 1) {
        int fd = open(argv[1], O_WRONLY | O_NONBLOCK);
        if (fd >= 0) {
            if (write(fd, "x", 1) < 0) return 1;
            close(fd);
        }
    }
    for (;;) pause();
}
