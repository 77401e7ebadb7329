"""What things are: the spec, instances, events, actions. No behaviour beyond their own invariants."""
