"""Every S3 operation that is not offered: the router answers NotImplemented for it.

Without these rows a request like `PUT /bucket/key?retention` would be taken for PutObject. A row is
taken out when its operation is offered, be it in part. Source: the S3 API's service model.
"""

from typing import Final, NamedTuple

from gateway.operation import Match, Resource


class KnownOperation(NamedTuple):
    """An operation of S3 by name, and what selects it."""

    name: str
    match: Match


def _rows(
    resource: Resource, table: tuple[tuple[str, str, tuple[str, ...]], ...]
) -> tuple[KnownOperation, ...]:
    return tuple(
        KnownOperation(name, Match(method, resource, query)) for name, method, query in table
    )


_BUCKET: Final = _rows(
    Resource.BUCKET,
    (
        ("CreateBucketMetadataConfiguration", "POST", ("metadataConfiguration",)),
        ("CreateBucketMetadataTableConfiguration", "POST", ("metadataTable",)),
        ("CreateSession", "GET", ("session",)),
        ("DeleteBucketAnalyticsConfiguration", "DELETE", ("analytics",)),
        ("DeleteBucketIntelligentTieringConfiguration", "DELETE", ("intelligent-tiering",)),
        ("DeleteBucketInventoryConfiguration", "DELETE", ("inventory",)),
        ("DeleteBucketMetadataConfiguration", "DELETE", ("metadataConfiguration",)),
        ("DeleteBucketMetadataTableConfiguration", "DELETE", ("metadataTable",)),
        ("DeleteBucketMetricsConfiguration", "DELETE", ("metrics",)),
        ("GetBucketAbac", "GET", ("abac",)),
        ("GetBucketAnalyticsConfiguration", "GET", ("analytics", "id")),
        ("GetBucketIntelligentTieringConfiguration", "GET", ("intelligent-tiering", "id")),
        ("GetBucketInventoryConfiguration", "GET", ("inventory", "id")),
        ("GetBucketMetadataConfiguration", "GET", ("metadataConfiguration",)),
        ("GetBucketMetadataTableConfiguration", "GET", ("metadataTable",)),
        ("GetBucketMetricsConfiguration", "GET", ("metrics", "id")),
        ("ListBucketAnalyticsConfigurations", "GET", ("analytics",)),
        ("ListBucketIntelligentTieringConfigurations", "GET", ("intelligent-tiering",)),
        ("ListBucketInventoryConfigurations", "GET", ("inventory",)),
        ("ListBucketMetricsConfigurations", "GET", ("metrics",)),
        ("PutBucketAbac", "PUT", ("abac",)),
        ("PutBucketAccelerateConfiguration", "PUT", ("accelerate",)),
        ("PutBucketAnalyticsConfiguration", "PUT", ("analytics",)),
        ("PutBucketIntelligentTieringConfiguration", "PUT", ("intelligent-tiering",)),
        ("PutBucketInventoryConfiguration", "PUT", ("inventory",)),
        ("PutBucketMetricsConfiguration", "PUT", ("metrics",)),
        ("PutBucketReplication", "PUT", ("replication",)),
        (
            "UpdateBucketMetadataAnnotationTableConfiguration",
            "PUT",
            ("metadataAnnotationTable",),
        ),
        ("UpdateBucketMetadataInventoryTableConfiguration", "PUT", ("metadataInventoryTable",)),
        ("UpdateBucketMetadataJournalTableConfiguration", "PUT", ("metadataJournalTable",)),
    ),
)

_OBJECT: Final = _rows(
    Resource.OBJECT,
    (
        ("DeleteObjectAnnotation", "DELETE", ("annotation",)),
        ("GetObjectAnnotation", "GET", ("annotation", "annotationName")),
        ("GetObjectTorrent", "GET", ("torrent",)),
        ("ListObjectAnnotations", "GET", ("annotation",)),
        ("PutObjectAnnotation", "PUT", ("annotation",)),
        ("RestoreObject", "POST", ("restore",)),
        ("SelectObjectContent", "POST", ("select",)),
        ("UpdateObjectEncryption", "PUT", ("encryption",)),
    ),
)

KNOWN: Final[tuple[KnownOperation, ...]] = _BUCKET + _OBJECT

ALIASES: Final = {
    "GetBucketLifecycle": "GetBucketLifecycleConfiguration",
    "GetBucketNotification": "GetBucketNotificationConfiguration",
    "PutBucketLifecycle": "PutBucketLifecycleConfiguration",
    "PutBucketNotification": "PutBucketNotificationConfiguration",
}
"""Older names of the same requests."""

ELSEWHERE: Final = frozenset({"ListDirectoryBuckets", "WriteGetObjectResponse"})
"""Operations of other endpoints than a region's."""
