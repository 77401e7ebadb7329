"""All I/O with Kibana and OpenSearch Dashboards: ``client``, and ``setup`` for the commands."""
