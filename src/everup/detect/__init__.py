"""Signals to suspicions and verdicts."""
