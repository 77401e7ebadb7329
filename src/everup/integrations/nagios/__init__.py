"""Nagios and its kin: plugins, passive results, NRPE, NSCA, Icinga 2."""
