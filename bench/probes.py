"""How many HTTP probes per second one core carries, how late they start, what one costs.

A small static HTTP server in C (built with gcc in a temporary directory) runs on the last core,
the prober on the first. Run: ``python bench/probes.py [seconds per row]``; about 30 s in all.
"""

import asyncio
import gc
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from everup.adapters.probes import Prober
from everup.model.instance import Slot
from everup.model.signal import ProbeKind, ProbeResult, ProbeTarget
from everup.model.spec import Probe

SERVER_C = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
    "Content-Length: 3\r\nConnection: close\r\n\r\nok\n";
int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int count = atoi(argv[1]), ep = epoll_create1(0), listeners[16];
    for (int i = 0; i < count; i++) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t n = sizeof a;
        int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (bind(s, (void *)&a, n) || listen(s, 4096)) return 1;
        getsockname(s, (void *)&a, &n);
        printf("%d\n", ntohs(a.sin_port));
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = s};
        epoll_ctl(ep, EPOLL_CTL_ADD, s, &e);
        listeners[i] = s;
    }
    fflush(stdout);
    for (;;) {
        struct epoll_event events[64];
        int ready = epoll_wait(ep, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            int s = events[i].data.u32, listener = 0;
            for (int k = 0; k < count; k++) listener |= s == listeners[k];
            if (listener) {
                int c = accept4(s, 0, 0, SOCK_NONBLOCK);
                struct epoll_event e = {.events = EPOLLIN, .data.u32 = c};
                if (c >= 0) epoll_ctl(ep, EPOLL_CTL_ADD, c, &e);
                continue;
            }
            char buffer[4096];
            ssize_t n = read(s, buffer, sizeof buffer);
            if (n > 0) send(s, answer, sizeof answer - 1, MSG_NOSIGNAL);
            if (n >= 0) close(s);
        }
    }
}
"""
LISTENERS = 4
HEADING = """\
  wanted  probes/s  failed      late      late      late    answer        CPU     CPU
   per s                      p50 ms    p99 ms    max ms    p50 ms   us/probe       %"""
RATES = (100, 1000, 5000, 7500)


async def no_exec(_target: ProbeTarget) -> tuple[bool, str]:
    raise NotImplementedError


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure(rate: int, ports: list[int], seconds: float) -> str:
    results: list[ProbeResult] = []
    prober = Prober(results.append, no_exec)
    for i in range(rate):
        port = ports[i % len(ports)]
        target = ProbeTarget(
            Slot("bench", i),
            ProbeKind.READINESS,
            1,
            Probe(http="/", interval=1.0, timeout=1.0),
            url=f"http://127.0.0.1:{port}/",
            source=f"127.0.{i % 250 + 1}.7",
        )
        prober.start(target, first_after_s=random.random())
    await asyncio.sleep(1.5)
    results.clear()
    began_s, began_cpu_s = time.monotonic(), cpu_s()
    await asyncio.sleep(seconds)
    took_s, used_s = time.monotonic() - began_s, cpu_s() - began_cpu_s
    prober.close()
    late = sorted(r.lateness_s * 1000 for r in results)
    answer = sorted(r.latency_s * 1000 for r in results)
    failed = sum(not r.ok for r in results)
    n = len(results)
    p50, p99, worst = late[n // 2], late[n * 99 // 100], late[-1]
    return (
        f"{rate:>8} {n / took_s:>9.0f} {failed:>7} {p50:>9.2f} {p99:>9.2f} {worst:>9.2f}"
        f" {answer[n // 2]:>9.2f} {used_s / n * 1e6:>10.0f} {used_s / took_s * 100:>7.1f}"
    )


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    gcc = shutil.which("gcc")
    if gcc is None:
        print("gcc is needed to build the server", file=sys.stderr)
        return 1
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "server.c"), Path(folder, "server")
        source.write_text(SERVER_C)
        subprocess.run([gcc, "-O2", "-o", program, source], check=True)
        server = subprocess.Popen([program, str(LISTENERS)], stdout=subprocess.PIPE, text=True)
        try:
            os.sched_setaffinity(server.pid, {cores[-1]})
            os.sched_setaffinity(0, {cores[0]})
            assert server.stdout is not None
            ports = [int(server.stdout.readline()) for _ in range(LISTENERS)]
            for port in ports:
                socket.create_connection(("127.0.0.1", port), 5).close()
            gc.collect()
            gc.freeze()
            print(f"{len(cores)} cores, load {os.getloadavg()[0]:.1f}, {seconds:g} s per row")
            print(HEADING)
            for rate in RATES:
                print(asyncio.run(measure(rate, ports, seconds)), flush=True)
        finally:
            server.kill()
            server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
