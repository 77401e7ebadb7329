"""Text that others wrote, made harmless for a terminal."""

import re

_INVISIBLE = (
    "\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"
)
"""What turns the direction of writing, ends a line, or does not show; but for the joiners that
some scripts need."""
_HARMFUL = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_INVISIBLE}]")
_HARMFUL_IN_A_LINE = re.compile(f"[\x00-\x08\x0a-\x1f\x7f-\x9f{_INVISIBLE}]")
_NAMED = {"\n": "\\n", "\r": "\\r"}


def shown(text: str) -> str:
    r"""The text with everything escaped that a terminal would obey, or that hides what is there:
    ``\x1b``, ``\u202e``. Tabs and ends of lines stay."""
    return _HARMFUL.sub(_escaped, text)


def shown_line(text: str) -> str:
    """The same, of what has to be one line."""
    return _HARMFUL_IN_A_LINE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def toml_escaped(text: str) -> str:
    """The same for the inside of a TOML string, which reads back as what it was."""
    return _HARMFUL_IN_A_LINE.sub(_toml, text)


def _toml(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
