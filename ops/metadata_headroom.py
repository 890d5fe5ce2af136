"""How many more objects the metadata has room for: an estimate, on the safe side."""

OBJECT_SIZE_BYTES = 400
"""What a plain object takes in etcd. Measured (tests/probe/test_metadata_size.py): about 255 bytes and
its key; so this holds for keys of up to some 140 bytes, without tags and metadata of users."""


def objects_left(in_use_bytes: int, quota_bytes: int) -> int:
    """What is free within the store's file is used again, so what holds something is what counts."""
    return max(quota_bytes - in_use_bytes, 0) // OBJECT_SIZE_BYTES
