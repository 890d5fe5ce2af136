"""Metadata keys, records and commits."""
