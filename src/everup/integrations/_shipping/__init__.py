"""What the integrations that ship the journal share: documents, the place up to which all is
acknowledged, the pace of retries, TLS."""
