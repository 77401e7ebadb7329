"""What went wrong with a connection, in the system's words."""

import os


def words(error: OSError) -> str:
    """Say it in a few words: asyncio puts the call and the address in their place."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return (error.strerror or str(error) or type(error).__name__).lower()[:200]
