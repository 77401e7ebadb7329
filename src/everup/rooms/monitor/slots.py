"""Words of a log line with what looks like a variable as slots."""

import re
from typing import Final

MOST_WORDS: Final = 200
"""Words of a line that are looked at."""
SLOT: Final = "\0"
SHOWN: Final = "<*>"

_STOP = r"\s,;:=|\"'`()\[\]{}<>!#"
_DAYS = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{0,6}+,?"
_MONTHS = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}+"
_CLOCK = r"\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?"
_FIND: Final = re.compile(
    rf"(?<!\w)(?P<date>(?:{_DAYS} )?(?:{_MONTHS} +\d\d?|\d\d? {_MONTHS})(?:,? +\d{{4}})?"
    rf",? +{_CLOCK}(?: [A-Z]{{3,4}})?(?: \d{{4}}\b)?)"
    rf"|(?<![^{_STOP}])(?P<url>[a-zA-Z][a-zA-Z0-9+.-]*+://[^\s\"'<>(),;\]]++)"
    r"|(?<=[\w.\])])=(?![=>])(?P<value>\"[^\"]{0,256}\"|[^\s,;|\"'`()\[\]{}<>]*+"
    r"(?:\{[^{}\s]{0,256}\}|\([^()\s]{0,256}\)|\[[^\[\]\s]{0,256}\])?)"
    rf"|(?<![^{_STOP}])(?P<word>[^{_STOP}\d./@\\]*+[\d./@\\][^{_STOP}?]*+(?:\?[^\s\"'<>]*+)?)"
    r"|(?<![^\s])(?:\((?P<none>)\)|\[\]|\"\"|'')"
)
_DIGIT: Final = re.compile(r"\d")
_VARIES: Final = re.compile(r"[\d\s]")
_INSIDE: Final = re.compile(r"[^\W_][./@\\]+[^\W_]|^[/\\~]")
_SOFT: Final = re.compile(r"[A-Za-z_-]*[A-Za-z]{2}[A-Za-z_-]*\d{1,3}(?:[A-Za-z_-]+|)$")
"""A word with a digit that may be a name: ``ssh2``, ``jk2_init``, ``utf8``."""
_ERROR: Final = re.compile(r"(?:Error|Exception|Fault|Warning)$")
_LISTS: Final = re.compile(r"\0,? \0,? \0")


def slots(line: str) -> tuple[list[str], list[str], bool]:
    """Give the words of a line with their slots, as they are compared and as they are shown."""
    values: list[str] = []
    soft = False

    def slot(match: re.Match[str]) -> str:
        nonlocal soft
        kind, text = match.lastgroup, match[0]
        if kind == "word":
            end = text[len(text.rstrip(".")) :]
            text = text[: len(text) - len(end)]
            if _DIGIT.search(text):
                if _SOFT.match(text):
                    soft = True
                    values.append(text)
                else:
                    values.append(SHOWN)
            elif match.start() and _INSIDE.search(text) and not _ERROR.search(text):
                values.append(text)
            else:
                return match[0]
            return SLOT + end
        if kind == "value":
            value = text[1:]
            values.append(SHOWN if _VARIES.search(value) else value)
            return "=" + SLOT
        if kind in ("date", "url"):
            values.append(SHOWN)
            return SLOT
        values.append("")
        return f"{text[0]}{SLOT}{text[1]}"

    if SLOT in line:
        line = line.replace(SLOT, "?")
    signs = _FIND.sub(slot, line).split()[:MOST_WORDS]
    shown, at = [], 0
    for sign in signs:
        if SLOT in sign:
            parts = sign.split(SLOT)
            word = parts[0]
            for part in parts[1:]:
                word += values[at] + part
                at += 1
            shown.append(word)
        else:
            shown.append(sign)
    if _LISTS.search(" ".join(signs)):
        signs, shown = _without_lists(signs, shown)
    return signs, shown, soft


def _without_lists(signs: list[str], shown: list[str]) -> tuple[list[str], list[str]]:
    """Three slots or more in a row are a list: its length is no part of the template."""
    out: tuple[list[str], list[str]] = ([], [])
    begin = 0
    while begin < len(signs):
        end = begin
        while end < len(signs) and signs[end] in (SLOT, SLOT + ","):
            end += 1
        if end - begin >= 3:
            out[0].append(SLOT)
            out[1].append(SHOWN)
            begin = end
        else:
            out[0].append(signs[begin])
            out[1].append(shown[begin])
            begin += 1
    return out
