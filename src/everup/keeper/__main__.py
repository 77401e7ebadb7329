"""Run the keeper: ``python -I -S .../everup/keeper/__main__.py OPTIONS``.

Run as a plain file and without site-packages, so that it stays small and starts at once, and
isolated: nothing beside it, in the working directory or in variables is taken for a module.
"""

import os
import sys

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    # Last: what is installed beside everup must not hide the standard library.
    sys.path[:] = [path for path in sys.path if path != here]
    sys.path.append(os.path.dirname(os.path.dirname(here)))
    from everup.keeper.keeper import main

    sys.exit(main(sys.argv[1:]))
