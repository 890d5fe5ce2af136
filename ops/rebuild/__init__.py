"""Rebuilding the metadata from the drives, when the store of the metadata is lost."""
