"""TOML text to a validated Spec."""
