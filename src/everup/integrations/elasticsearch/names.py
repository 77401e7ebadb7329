"""What everup calls its things in the search server. Pure."""


def events(namespace: str) -> str:
    """Give the data stream of the events, or the alias where there are no data streams."""
    return f"logs-everup.events-{namespace}"


def incidents(namespace: str) -> str:
    """Give the index of the incidents: one document each, replaced as they go on."""
    return f"everup-incidents-{namespace}"
