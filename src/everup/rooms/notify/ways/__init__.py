"""The ways on which messages leave the machine, one in each file."""


class RefusedError(Exception):
    """The other side refuses the message, and would refuse it the next time as well."""


class LaterError(Exception):
    """It did not work this time. ``retry_after_s``: when the other side wants it again."""

    def __init__(self, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s
