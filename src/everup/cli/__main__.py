"""``python -m everup.cli``."""

from everup.cli import main

if __name__ == "__main__":
    main()
