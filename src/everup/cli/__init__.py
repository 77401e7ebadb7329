"""Commands: all of them clients of the API."""
