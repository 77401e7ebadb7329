"""What everup needs: the list in pyproject.toml, and everup-tolerate, built from this tree too.

In a checkout that one is taken from where it lies; what `make dist` makes asks for it by name.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Dependencies(MetadataHookInterface):
    """Found by hatchling through ``tool.hatch.metadata.hooks.custom`` in pyproject.toml."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add ``dependencies`` to the metadata of the project."""
        root = Path(self.root)
        beside = root / "packages" / "tolerate"
        if (beside / "pyproject.toml").exists() and not os.environ.get("EVERUP_DIST"):
            tolerate = f"everup-tolerate @ {beside.as_uri()}"
        else:
            text = (root / "src" / "everup" / "__init__.py").read_text(encoding="utf-8")
            found = re.search(r'__version__ = "([^"]+)"', text)
            assert found is not None
            tolerate = f"everup-tolerate=={found[1]}"
        metadata["dependencies"] = [*self.config["needs"], tolerate]
