"""The small process that holds sockets, pipes and children; standard library only."""
