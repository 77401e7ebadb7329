"""Writes the pipeline of Logstash for what everup ships. Pure."""

from collections.abc import Sequence
from typing import Final

_HEAD: Final = """\
# Takes what everup ships by [logstash], and stores each document once: its id follows from
# what it tells, so that what comes twice is known again.
input {{
  beats {{
    port => {port}
{tls}  }}
}}

"""
_TLS: Final = """    ssl_enabled => true
    ssl_certificate => "/etc/logstash/server.pem"
    ssl_key => "/etc/logstash/server.key"  # PKCS #8
"""
_VERIFY: Final = """    ssl_client_authentication => "required"
    ssl_certificate_authorities => ["/etc/logstash/ca.pem"]
"""
_STORE: Final = """output {{
  if [event][dataset] == "everup.incidents" {{
    # One document for each incident; the newest state takes the place of the one before.
    {name} {{
      hosts => [{hosts}]
      index => "everup-incidents-%{{[data_stream][namespace]}}"
      action => "index"
      document_id => "%{{[@metadata][_id]}}"
      manage_template => false{quiet}
    }}
  }} else if [event][dataset] == "everup.events" {{
    {name} {{
      hosts => [{hosts}]
      index => "logs-everup.events-%{{[data_stream][namespace]}}"
      action => "create"
      document_id => "%{{[@metadata][_id]}}"
      manage_template => false{quiet}
    }}
  }}
}}
"""
_ELASTIC: Final = """
      ilm_enabled => false
      data_stream => false"""
_PRINT: Final = """output {
  stdout { codec => rubydebug { metadata => true } }
}
"""


def pipeline(port: int, urls: Sequence[str], *, opensearch: bool, tls: bool, verify: bool) -> str:
    """Give the text of a ``logstash.conf``. ``urls``: of the search server; none: what comes is
    printed."""
    lines = (_TLS + (_VERIFY if verify else "")) if tls else ""
    head = _HEAD.format(port=port, tls=lines)
    if not urls:
        return head + _PRINT
    hosts = ", ".join(f'"{_quoted(url)}"' for url in urls)
    name, quiet = ("opensearch", "") if opensearch else ("elasticsearch", _ELASTIC)
    return head + _STORE.format(name=name, hosts=hosts, quiet=quiet)


def _quoted(text: str) -> str:
    """Text for the inside of quotes, where nothing of it ends them."""
    return "".join(c for c in text if c not in '"\\\r\n' and c.isprintable())
