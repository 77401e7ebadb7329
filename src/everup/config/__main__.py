"""Rewrites the generated pages: ``python -m everup.config``, from the top of the checkout."""

import json
from pathlib import Path

from everup.config import json_schema, reference

_DOCS = Path("docs") / "reference"


def main() -> None:
    if not _DOCS.is_dir():
        raise SystemExit(f"no directory {_DOCS} here; run this from the top of the checkout")
    (_DOCS / "config.md").write_text(reference(), encoding="utf-8")
    (_DOCS / "everup.schema.json").write_text(
        json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
