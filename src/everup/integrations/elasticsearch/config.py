"""The table ``[elasticsearch]``."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from everup.integrations._shipping.values import Fingerprint, Namespace, Url, in_the_open
from everup.model.table import CONFIG
from everup.model.units import Duration


@dataclass(frozen=True, slots=True, config=CONFIG)
class Elasticsearch:
    """Where the journal's events and the incidents are shipped to: Elasticsearch or OpenSearch, as
    documents of the Elastic Common Schema. ``everup elasticsearch setup`` prepares the server."""

    urls: tuple[Url, ...] = ()
    """Addresses of the server's nodes, like ``"https://search:9200"``, without a password. The next
    one is taken where one fails. Without any, nothing is shipped."""
    api_key_file: str | None = None
    """File whose first line is an API key as Elasticsearch gives it (``encoded``)."""
    user: str | None = None
    """Name for basic authentication; with ``password_file``."""
    password_file: str | None = None
    """File whose first line is the password of ``user``."""
    ca_file: str | None = None
    """File of certificates (PEM) to trust instead of the system's."""
    fingerprint: Fingerprint | None = None
    """SHA-256 of the server's own certificate in hexadecimal: that one is trusted, whoever signed
    it."""
    unencrypted: bool = False
    """Whether a password or key may go to another machine over ``http``."""
    ship: tuple[Literal["events", "incidents"], ...] = ("events", "incidents")
    """What is shipped: every event of the journal, one document for each incident."""
    namespace: Namespace = "default"
    """Last part of the data stream's name, ``logs-everup.events-NAMESPACE``."""
    gzip: bool = True
    """Whether what is sent is compressed."""
    timeout: Annotated[Duration, Field(ge=1, le=600)] = 60.0
    """A request that is not answered by then is made again, 1s to 10m."""

    def __post_init__(self) -> None:
        """Refuse ways to prove who we are that do not go together."""
        if not self.urls and (self.api_key_file or self.user or self.ca_file or self.fingerprint):
            raise ValueError("needs urls: where the server is")
        if self.api_key_file is not None and self.user is not None:
            raise ValueError("has both api_key_file and user: only one of them can be used")
        if (self.user is None) is not (self.password_file is None):
            raise ValueError("needs user and password_file, or neither of them")
        secret = self.api_key_file or self.password_file
        if secret and not self.unencrypted and (open_ := in_the_open(self.urls)):
            raise ValueError(
                f"would send the secret of {secret} unencrypted to {open_[0]}: use https, or say "
                "unencrypted = true"
            )
        if self.fingerprint is not None and self.ca_file is not None:
            raise ValueError("has both fingerprint and ca_file: the fingerprint alone is enough")
