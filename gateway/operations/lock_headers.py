"""Object lock in the headers of writes and reads."""

from collections.abc import Mapping

from gateway.domain.object_lock import MODES, UNLOCKED, Lock, default_retention
from gateway.metadata.records import BucketRecord, ObjectRecord, UploadRecord
from gateway.operations.object_headers import Headers
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.headers import format_iso8601, parse_iso8601
from placement.clock import Clock

MODE = "x-amz-object-lock-mode"
UNTIL = "x-amz-object-lock-retain-until-date"
HOLD = "x-amz-object-lock-legal-hold"
BYPASS = "x-amz-bypass-governance-retention"


def asked_lock(headers: Mapping[str, str]) -> Lock:
    """What a write asks for its version. Raises InvalidArgument."""
    mode, until, hold = headers.get(MODE), headers.get(UNTIL), headers.get(HOLD)
    if mode is None and until is None and hold is None:
        return UNLOCKED
    if (mode is None) != (until is None):
        raise invalid_argument(
            MODE if mode is None else UNTIL,
            "",
            f"{UNTIL} and {MODE} must both be supplied",
        )
    retention = None
    if mode is not None and until is not None:
        if mode not in MODES:
            raise invalid_argument(MODE, mode, "Unknown wormMode directive.")
        until_ms = parse_iso8601(until)
        if until_ms is None:
            raise invalid_argument(UNTIL, until, "The retain until date must be an ISO 8601 date.")
        retention = (mode, until_ms)
    if hold not in (None, "ON", "OFF"):
        raise invalid_argument(HOLD, hold or "", "Legal Hold must be either of 'ON' or 'OFF'")
    return Lock(retention, None if hold is None else hold == "ON")


def lock_of_version(bucket: BucketRecord, asked: Lock, clock: Clock) -> Lock:
    """The lock of a version written now: what the write asks, else the bucket's default.

    Raises InvalidRequest where the bucket has no object lock, InvalidArgument for a date that is
    not ahead.
    """
    if not bucket.object_lock:
        if asked.retention is not None or asked.is_held:
            raise S3Error(ErrorCode.INVALID_REQUEST, "Bucket is missing ObjectLockConfiguration")
        return UNLOCKED
    now_ms = clock.now_ns() // 1_000_000
    if asked.retention is None:
        return Lock(default_retention(bucket.lock_default, now_ms), asked.legal_hold)
    demand_future(asked.retention[1], now_ms)
    return asked


def lock_of_upload(bucket: BucketRecord, upload: UploadRecord, now_ms: int) -> Lock:
    """The lock of the version that an upload becomes: what it was begun with, else the default."""
    retention = upload.retention or default_retention(bucket.lock_default, now_ms)
    return Lock(retention, upload.hold)


def demand_future(until_ms: int, now_ms: int) -> None:
    """Raises InvalidArgument for a date that is not ahead."""
    if until_ms <= now_ms:
        raise invalid_argument(
            UNTIL, format_iso8601(until_ms), "The retain until date must be in the future!"
        )


def lock_headers(record: ObjectRecord) -> Headers:
    """What GET and HEAD tell of a version's lock."""
    headers: Headers = []
    if record.retention is not None:
        mode, until_ms = record.retention
        headers += [(MODE, mode), (UNTIL, format_iso8601(until_ms))]
    if record.hold is not None:
        headers.append((HOLD, hold_text(record.hold)))
    return headers


def hold_text(hold: bool) -> str:
    """A legal hold as S3 writes it."""
    return "ON" if hold else "OFF"


def bypasses_governance(headers: Mapping[str, str]) -> bool:
    """Whether the request asks to pass over governance mode."""
    return headers.get(BYPASS, "").lower() == "true"
