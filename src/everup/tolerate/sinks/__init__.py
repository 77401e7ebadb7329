"""Telling the world what policies do and how calls go. Each module is loaded when it is asked for:
``logs``, ``prometheus`` (needs prometheus_client), ``otel`` (OpenTelemetry), ``everup``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everup.tolerate.sinks.everup import EverupSink
    from everup.tolerate.sinks.logs import LogSink
    from everup.tolerate.sinks.otel import OtelSink
    from everup.tolerate.sinks.prometheus import PrometheusSink

__all__ = ["EverupSink", "LogSink", "OtelSink", "PrometheusSink"]

_WHERE = {
    "EverupSink": "everup",
    "LogSink": "logs",
    "OtelSink": "otel",
    "PrometheusSink": "prometheus",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
