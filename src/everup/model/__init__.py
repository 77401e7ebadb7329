"""What things are: spec, instances, signals, events, actions. No behaviour of their own."""
