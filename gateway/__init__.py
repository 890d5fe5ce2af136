"""The stateless S3 gateway: HTTP in, shards and one metadata commit out."""
