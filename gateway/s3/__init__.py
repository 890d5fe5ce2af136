"""The S3 protocol without I/O."""
