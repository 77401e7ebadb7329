"""Wires the rooms into the loop and defines the ports that the adapters fill."""
