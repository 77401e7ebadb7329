"""everup keeps network services on Linux serving through faults."""

import os as _os

__version__ = "0.1.0"

# everup.tolerate is a distribution of its own, which may be installed in another place than this.
if not _os.path.isdir(_os.path.join(__path__[0], "tolerate")):
    from pkgutil import extend_path as _extend_path

    __path__ = _extend_path(__path__, __name__)
