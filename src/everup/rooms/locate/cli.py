"""``everup why``."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from everup.cli.context import NOT_WELL, OK, USAGE, Failure, Here, json_option, leave, print_json
from everup.cli.screen import echo, style
from everup.model.display import shown_line
from everup.rooms.locate.causes import Answer, Cause, Known
from everup.rooms.locate.causes import why as find
from everup.rooms.locate.read import known

_MOST_SHOWN = 8


@click.command()
@click.argument("subject", required=False, metavar="[SERVICE|INSTANCE]")
@json_option
@click.pass_obj
def why(here: Here, subject: str | None, as_json: bool) -> None:
    """Say why a service or an instance failed: the cause, how sure that is, the evidence, and what
    to look at next. Without a name: all that do not serve, else what failed last. Works while
    everup is off, too. Exit status 4: something does not serve.
    """
    facts = known(here.place)
    answers = [_answer(name, facts) for name in ([subject] if subject else _failing(facts))]
    if as_json:
        print_json([_plain(answer) for answer in answers])
    elif not answers:
        echo("nothing has failed as far as the journal goes  (next: everup status)")
    else:
        for n, answer in enumerate(answers):
            if n:
                echo()
            _show(answer)
    leave(NOT_WELL if any(answer.failing for answer in answers) else OK)


def _answer(subject: str, facts: Known) -> Answer:
    try:
        return find(subject, facts)
    except LookupError:
        names = sorted({s.service for s in facts.told.values()})
        there = f"there are: {', '.join(names)}" if names else "nothing has run yet: everup up"
        text = f"the journal knows no service or instance {subject!r}"
        raise Failure(text, there, USAGE) from None


def _failing(facts: Known) -> list[str]:
    """The services that do not serve; where all do, the one that failed last."""
    told = facts.told.values()
    down = dict.fromkeys(story.service for story in told if story.is_down)
    if down:
        return list(down)
    failed = [story for story in told if story.last is not None]
    last = max(failed, key=lambda story: (story.last or {})["at"], default=None)
    return [last.slot] if last is not None else []


def _show(answer: Answer) -> None:
    echo(style(shown_line(f"{answer.sentence}."), bold=True))
    if answer.since is not None:
        done = f"; {answer.done}" if answer.done else ""
        echo(shown_line(f"  since {_time(answer.since)}{done}"))
    if len(answer.path) > 1:
        echo(shown_line(f"  path: {' -> '.join(answer.path)}"))
    top = answer.causes[0] if answer.causes else None
    if top is not None:
        for seen in top.evidence[:_MOST_SHOWN]:
            when = f"{_time(seen.at)}  " if seen.at is not None else ""
            echo(shown_line(f"  {seen.source:<8} {when}{seen.text}"))
        if len(answer.causes) > 1:
            echo(shown_line(f"  or: {_lost(answer.causes[1], top)}"))
        for text in top.then:
            echo(shown_line(f"  next: {text}"))
    if answer.failing or top is not None:
        echo(shown_line(f"  more: everup logs {answer.subject}; everup events -s {answer.subject}"))


def _lost(second: Cause, first: Cause) -> str:
    sure = f"{second.confidence:.0%} against {first.confidence:.0%}"
    return f"{second.says} (less likely: {sure})"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%m-%d %H:%M:%S")


def _plain(answer: Answer) -> dict[str, Any]:
    def utc(value: Any) -> Any:
        return None if value is None else datetime.fromtimestamp(value, UTC).isoformat()

    out = asdict(answer) | {"since": utc(answer.since), "last": utc(answer.last)}
    out["confident"] = answer.cause is not None
    for cause in out["causes"]:
        for seen in cause["evidence"]:
            seen["at"] = utc(seen["at"])
    return out
