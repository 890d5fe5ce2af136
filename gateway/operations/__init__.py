"""S3 operations, one file a resource family: decode, handle, encode, one registry row each."""
