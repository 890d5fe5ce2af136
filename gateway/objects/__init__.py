"""Writing blobs as shards and reading them back."""
