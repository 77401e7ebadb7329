"""The table ``[kibana]``."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from everup.model.table import CONFIG

_URL = r"^https?://[^/?#@\s]+(/[^?#@\s]*)?$"


@dataclass(frozen=True, slots=True, config=CONFIG)
class Kibana:
    """Where ``everup kibana setup`` puts dashboards of what ``[elasticsearch]`` or ``[logstash]``
    ships: Kibana or OpenSearch Dashboards. Nothing else uses it."""

    url: Annotated[str | None, Field(pattern=_URL)] = None
    """Its address, like ``"https://kibana:5601"``, without a password."""
    space: Annotated[str | None, Field(pattern=r"^[a-z0-9_-]{1,100}$")] = None
    """Space of Kibana. Default: its default space."""
    api_key_file: str | None = None
    """File whose first line is an API key as Elasticsearch gives it (``encoded``)."""
    user: str | None = None
    """Name for basic authentication; with ``password_file``."""
    password_file: str | None = None
    """File whose first line is the password of ``user``."""
    ca_file: str | None = None
    """File of certificates (PEM) to trust instead of the system's."""
    fingerprint: Annotated[str | None, Field(pattern=r"^([0-9A-Fa-f]{2}:?){32}$")] = None
    """SHA-256 of its own certificate in hexadecimal: that one is trusted, whoever signed it."""

    def __post_init__(self) -> None:
        """Refuse ways to prove who we are that do not go together."""
        if self.api_key_file is not None and self.user is not None:
            raise ValueError("has both api_key_file and user: only one of them can be used")
        if (self.user is None) is not (self.password_file is None):
            raise ValueError("needs user and password_file, or neither of them")
        if self.fingerprint is not None and self.ca_file is not None:
            raise ValueError("has both fingerprint and ca_file: the fingerprint alone is enough")
