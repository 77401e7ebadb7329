"""Keeps secrets out of what is shown of a config."""

import re
from typing import Any

MASK = "********"
_SECRET = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|KEY|CREDENTIAL|AUTHORIZATION|COOKIE", re.IGNORECASE
)
_USER_IN_URL = re.compile(r"(://)[^\s\"'/?#@:]*@")
_PASSWORD_IN_URL = re.compile(r"(://[^:/@\s\"']*:)(?!\d+(?:/|$))[^\s\"']+@")
_NAMES = r"PASSWORD|PASSWD|PASSPHRASE|PWD|SECRET|TOKEN|CREDENTIALS?|API[-_]?KEY|ACCESS[-_]?KEY"
_VALUE = r"([^\s\"'&]+)"
_ASSIGNED = re.compile(rf"([\w.-]*(?:{_NAMES})[\w.-]*(?:=|:\s*)){_VALUE}", re.IGNORECASE)
_GIVEN = re.compile(rf"((?:^|\s)-{{1,2}}[\w.-]*(?:{_NAMES})[\w.-]*\s+){_VALUE}", re.IGNORECASE)
_HEADER = re.compile(r"((?:authorization|cookie|x-[\w-]*auth[\w-]*):\s*)([^\"'\n]+)", re.IGNORECASE)
_OPTION = re.compile(rf"-{{1,2}}[\w.-]*(?:{_NAMES})", re.IGNORECASE)


def masked(name: str, text: str) -> str:
    """``text``, or a mask if the name says that it is a secret."""
    return MASK if _SECRET.search(name) else redact(text)


def redact(text: str) -> str:
    """The text without the users and passwords of URLs and what is given to names like PASSWORD."""
    text = _PASSWORD_IN_URL.sub(rf"\g<1>{MASK}@", text)
    text = _USER_IN_URL.sub(rf"\g<1>{MASK}@", text)
    for pattern in (_ASSIGNED, _GIVEN, _HEADER):
        text = pattern.sub(rf"\g<1>{MASK}", text)
    return text


def without_path(url: str) -> str:
    """A URL without what comes after its host: of a webhook, whoever knows that may post to it."""
    found = re.match(r"([a-z]+://[^/?#]*)[/?#].", redact(url))
    return f"{found[1]}/{MASK}" if found else redact(url)


def redact_words(words: "list[str] | tuple[str, ...]") -> list[str]:
    """The words of a command, also where an option and its value are two of them."""
    out: list[str] = []
    for word in words:
        given = bool(out) and _OPTION.fullmatch(out[-1]) is not None and not word.startswith("-")
        out.append(MASK if given else redact(word))
    return out


def redacted(value: Any) -> Any:
    """The same of any value of a document."""
    match value:
        case str():
            return redact(value)
        case list() | tuple() if all(isinstance(item, str) for item in value):
            return redact_words(value)
        case list() | tuple():
            return [redacted(item) for item in value]
        case _:
            return value
