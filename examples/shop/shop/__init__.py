"""A small shop: a web service, a worker and a schema migration on one SQLite database."""
