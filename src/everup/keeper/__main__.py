"""Run the keeper: ``python -S -E .../everup/keeper/__main__.py OPTIONS``.

Run as a plain file and without site-packages, so that it stays small and starts at once.
"""

import os
import sys

if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from everup.keeper.keeper import main

    sys.exit(main(sys.argv[1:]))
