"""Parts of demo.py."""
