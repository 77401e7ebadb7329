"""Templates in config strings: ``{replica}``, ``{port}`` and ``{service}``.

``{{`` and ``}}`` stand for braces. There is no other syntax, on purpose.
"""

NAMES = ("replica", "port", "service")
"""What can stand between braces."""

__all__ = ["NAMES", "TemplateError", "escape", "expand", "names"]


class TemplateError(ValueError):
    """The text is no valid template; says why and what to write instead."""


def expand(text: str, *, service: str, replica: int, port: int | None) -> str:
    """``text`` with its templates filled in for one replica.

    ``replica`` counts from 1. ``port`` is the replica's own port, or None for a service without.
    Raises `TemplateError` for an unknown name, an unbalanced brace, and ``{port}`` without a port.
    """
    out: list[str] = []
    for literal, name in _split(text):
        out.append(literal)
        match name:
            case "replica":
                out.append(str(replica))
            case "service":
                out.append(service)
            case "port":
                if port is None:
                    raise TemplateError("{port} needs the key port")
                out.append(str(port))
            case _:
                pass
    return "".join(out)


def names(text: str) -> frozenset[str]:
    """The template names that ``text`` uses; `TemplateError` if it is not valid."""
    return frozenset(name for _, name in _split(text) if name)


def escape(text: str) -> str:
    """``text`` with its braces doubled, so that it expands to itself."""
    return text.replace("{", "{{").replace("}", "}}")


def _split(text: str) -> list[tuple[str, str]]:
    """Pieces of literal text, each with the name that follows it (or "")."""
    pieces: list[tuple[str, str]] = []
    at = start = 0
    while at < len(text):
        if text.startswith(("{{", "}}"), at):
            pieces.append((text[start : at + 1], ""))
            at += 2
            start = at
        elif text[at] == "}":
            raise TemplateError("a } without its {; write }} for a brace")
        elif text[at] == "{":
            end = text.find("}", at)
            if end < 0:
                raise TemplateError("a { without its }; write {{ for a brace")
            name = text[at + 1 : end]
            if name not in NAMES:
                known = ", ".join(f"{{{known}}}" for known in NAMES)
                # the name is not repeated here: the text may be a secret
                raise TemplateError(f"only {known} can be filled in; write {{{{ }}}} for braces")
            pieces.append((text[start:at], name))
            at = start = end + 1
        else:
            at += 1
    pieces.append((text[start:], ""))
    return pieces
