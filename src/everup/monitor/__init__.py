"""Signals to rates and windows."""
