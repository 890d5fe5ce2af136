"""Background duties: garbage, sweep, repair, re-encoding, abandoned uploads."""
