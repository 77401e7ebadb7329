"""The life cycle of instances: state table, restarts, order."""
