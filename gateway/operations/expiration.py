"""x-amz-expiration: what answers tell of the end that lifecycle rules have in store for an object.

Source: Amazon S3 API Reference, GetObject, "x-amz-expiration": expiry-date and rule-id, the latter
URL-encoded. Dates are those of whole days, also where the keeper's days are shorter for tests.
"""

from urllib.parse import quote

from gateway.domain.lifecycle import current_due
from gateway.metadata.entries import BucketEntry
from gateway.metadata.records import ObjectRecord
from gateway.operations.object_headers import Headers, http_date


def expiration_of(entry: BucketEntry, key: str, record: ObjectRecord) -> str:
    """The header's value for a current object; "" where no rule ends it. Callers ask only where
    `entry.lifecycle` holds rules."""
    due = current_due(
        entry.lifecycle,
        key,
        tags=record.tags,
        size_bytes=record.size_bytes,
        modified_ms=record.modified_ms,
    )
    if due is None:
        return ""
    date = http_date(due.at_ms // 1000)
    return f'expiry-date="{date}", rule-id="{quote(due.rule_id, safe="")}"'


def expiration_headers(expiration: str) -> Headers:
    """The header, where there is something to tell."""
    return [("x-amz-expiration", expiration)] if expiration else []
