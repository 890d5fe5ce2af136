"""Rules of the object store as pure functions."""
