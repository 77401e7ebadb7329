"""CPU pressure of the machine (PSI, Documentation/accounting/psi.rst)."""

_PATH = "/proc/pressure/cpu"


def cpu_pressure() -> float:
    """Share of the last 10 s in which some task waited for CPU, in percent; 0 where the kernel
    does not tell."""
    try:
        with open(_PATH, "rb", buffering=0) as file:
            line = file.read(256)
        return float(line.split(b"avg10=", 1)[1].split(b" ", 1)[0])
    except (OSError, IndexError, ValueError):
        return 0.0
