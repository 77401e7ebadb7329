"""The observer: the process that reads what the engine writes, says why, and speaks to others."""
