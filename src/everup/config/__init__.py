"""TOML text to a validated Spec; every error names file, line, key, value and what would be valid.

Pure: text in, values out. Reading the file is the caller's part.
"""

from everup.config._address import Address, parse_address
from everup.config._explain import explain
from everup.config._load import MAX_BYTES, check, load
from everup.config._problem import ConfigError, Problem, Report
from everup.config._reference import reference
from everup.config._schema import json_schema
from everup.config._signals import SIGNALS

__all__ = [
    "MAX_BYTES",
    "SIGNALS",
    "Address",
    "ConfigError",
    "Problem",
    "Report",
    "check",
    "explain",
    "json_schema",
    "load",
    "parse_address",
    "reference",
]
