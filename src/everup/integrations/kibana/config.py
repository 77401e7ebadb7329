"""The table ``[kibana]``."""

from pydantic.dataclasses import dataclass

from everup.integrations._shipping.values import Fingerprint, Space, Url, in_the_open
from everup.model.table import CONFIG


@dataclass(frozen=True, slots=True, config=CONFIG)
class Kibana:
    """Where ``everup kibana setup`` puts dashboards of what ``[elasticsearch]`` or ``[logstash]``
    ships: Kibana or OpenSearch Dashboards. Nothing else uses it."""

    url: Url | None = None
    """Its address, like ``"https://kibana:5601"``, without a password."""
    space: Space | None = None
    """Space of Kibana. Default: its default space."""
    api_key_file: str | None = None
    """File whose first line is an API key as Elasticsearch gives it (``encoded``)."""
    user: str | None = None
    """Name for basic authentication; with ``password_file``."""
    password_file: str | None = None
    """File whose first line is the password of ``user``."""
    ca_file: str | None = None
    """File of certificates (PEM) to trust instead of the system's."""
    fingerprint: Fingerprint | None = None
    """SHA-256 of its own certificate in hexadecimal: that one is trusted, whoever signed it."""
    unencrypted: bool = False
    """Whether a password or key may go to another machine over ``http``."""

    def __post_init__(self) -> None:
        """Refuse ways to prove who we are that do not go together."""
        if self.api_key_file is not None and self.user is not None:
            raise ValueError("has both api_key_file and user: only one of them can be used")
        if (self.user is None) is not (self.password_file is None):
            raise ValueError("needs user and password_file, or neither of them")
        secret = self.api_key_file or self.password_file
        if (
            secret
            and not self.unencrypted
            and (open_ := in_the_open([self.url] if self.url else []))
        ):
            raise ValueError(
                f"would send the secret of {secret} unencrypted to {open_[0]}: use https, or say "
                "unencrypted = true"
            )
        if self.fingerprint is not None and self.ca_file is not None:
            raise ValueError("has both fingerprint and ca_file: the fingerprint alone is enough")
