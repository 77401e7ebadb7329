"""Create the schema and the products, then end: ``python -m shop.migrate``."""

from shop.db import database_path, migrate
from shop.log import log


def main() -> None:
    """Run the migration on the database that ``SHOP_DB`` names."""
    path = database_path()
    migrate(path)
    log("info", "migrated", database=path)


if __name__ == "__main__":
    main()
