"""Public doubles: the simulated world."""
