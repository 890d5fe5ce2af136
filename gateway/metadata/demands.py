"""Conditions of writes and deletes, judged on what is there; what fails is raised."""

from gateway.domain.conditions import (
    DeleteConditions,
    Judgement,
    Verdict,
    WriteConditions,
    judge_delete,
    judge_write,
)
from gateway.metadata import keys
from gateway.metadata.entries import ObjectEntry, etag_text
from gateway.metadata.errors import NoSuchKey, PreconditionFailed


def demand_write(
    conditions: WriteConditions, record_key: bytes, previous: ObjectEntry | None
) -> None:
    """Raises PreconditionFailed, NoSuchKey. `record_key` is the object's."""
    etag = None if previous is None else etag_text(previous.record)
    _demand(judge_write(conditions, etag), record_key)


def demand_delete(conditions: DeleteConditions, previous: ObjectEntry) -> None:
    """Raises PreconditionFailed."""
    judgement = judge_delete(
        conditions,
        etag=etag_text(previous.record),
        size_bytes=previous.record.size_bytes,
        modified_ms=previous.record.modified_ms,
    )
    _demand(judgement, previous.record_key)


def _demand(judgement: Judgement, record_key: bytes) -> None:
    if judgement.verdict is Verdict.PROCEED:
        return
    if judgement.verdict is Verdict.NO_SUCH_KEY:
        raise NoSuchKey(keys.key_of_object(record_key))
    raise PreconditionFailed(judgement.header)
