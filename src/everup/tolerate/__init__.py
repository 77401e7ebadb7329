"""The in-process side of fault tolerance. Standard library alone."""
