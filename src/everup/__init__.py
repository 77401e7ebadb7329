"""everup keeps network services on Linux serving through faults."""

__version__ = "0.1.0"
