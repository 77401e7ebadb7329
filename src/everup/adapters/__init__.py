"""The edge: everything that touches the world."""
