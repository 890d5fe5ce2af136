"""Identifiers that cross module borders."""

from typing import NewType

BlobId = NewType("BlobId", bytes)
"""16 random bytes naming one immutable blob. Its first bytes decide its partition."""

GroupId = NewType("GroupId", bytes)
"""16 bytes naming a unit of reclaiming: a plain blob's own id, or the id of a multipart upload."""

UploadId = NewType("UploadId", bytes)
"""16 random bytes naming a multipart upload; also the group of its parts."""

BucketId = NewType("BucketId", bytes)
"""8 random bytes naming a bucket for its lifetime; a bucket made again has another."""

DriveId = NewType("DriveId", bytes)
"""16 random bytes in a drive's identity file; an emptied folder gets a new one."""

Slot = NewType("Slot", int)
"""A drive's position in the cluster map. A replacement drive takes its predecessor's slot, so
placement does not change."""

Epoch = NewType("Epoch", int)
"""Version of the cluster map, from 1."""

Partition = NewType("Partition", int)
"""0 ≤ partition < the map's partition count."""
