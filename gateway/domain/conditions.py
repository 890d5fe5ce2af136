"""The rules of conditional requests: which headers win, and what their failing means.

Sources: RFC 9110 section 13.2.2 (precedence); S3 API Reference, GetObject and CopyObject (the
same order, 412 where a copy's source is not modified), PutObject and DeleteObject (If-Match on a
key that does not exist).
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol, Self


class ETagSet(Protocol):
    """The value of If-Match or If-None-Match."""

    def match(self, etag: str) -> bool:
        """Whether an existing object with this tag (without quotes) is meant; "*" means any."""
        ...


class Verdict(Enum):
    """What a condition says of the object at hand."""

    PROCEED = "proceed"
    NOT_MODIFIED = "not modified"
    FAILED = "failed"
    NO_SUCH_KEY = "no such key"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and the header that brought it about ("" when all hold)."""

    verdict: Verdict
    header: str = ""


PROCEED = Judgement(Verdict.PROCEED)


@dataclass(frozen=True, slots=True)
class ReadConditions:
    """Conditions of GET, HEAD, and of a copy's source. Dates in whole seconds since the epoch."""

    if_match: ETagSet | None = None
    if_none_match: ETagSet | None = None
    if_modified_since: int | None = None
    if_unmodified_since: int | None = None

    @property
    def any(self) -> bool:
        """Whether there is any condition at all."""
        return (
            self.if_match is not None
            or self.if_none_match is not None
            or self.if_modified_since is not None
            or self.if_unmodified_since is not None
        )

    def at(self, now_ms: int) -> Self:
        """The conditions as they count at that moment: an If-Modified-Since in the future is no
        valid date (RFC 7232 section 3.3), and S3 passes it over."""
        since = self.if_modified_since
        if since is None or since <= now_ms // 1000:
            return self
        return replace(self, if_modified_since=None)


@dataclass(frozen=True, slots=True)
class WriteConditions:
    """Conditions of PUT, CompleteMultipartUpload and a copy's destination."""

    if_match: ETagSet | None = None
    if_none_match: ETagSet | None = None


@dataclass(frozen=True, slots=True)
class DeleteConditions:
    """Conditions of DELETE. The time in whole seconds since the epoch, the size in bytes."""

    if_match: ETagSet | None = None
    if_match_size_bytes: int | None = None
    if_match_last_modified: int | None = None


def judge_read(conditions: ReadConditions, *, etag: str, modified_ms: int) -> Judgement:
    """GET and HEAD of an existing object.

    If-Match that holds overrules If-Unmodified-Since, If-None-Match overrules If-Modified-Since.
    Times are compared in whole seconds, as the client was told them.
    """
    modified = modified_ms // 1000
    if conditions.if_match is not None:
        if not conditions.if_match.match(etag):
            return Judgement(Verdict.FAILED, "If-Match")
    elif conditions.if_unmodified_since is not None and modified > conditions.if_unmodified_since:
        return Judgement(Verdict.FAILED, "If-Unmodified-Since")
    if conditions.if_none_match is not None:
        if conditions.if_none_match.match(etag):
            return Judgement(Verdict.NOT_MODIFIED, "If-None-Match")
    elif conditions.if_modified_since is not None and modified <= conditions.if_modified_since:
        return Judgement(Verdict.NOT_MODIFIED, "If-Modified-Since")
    return PROCEED


def judge_copy_source(conditions: ReadConditions, *, etag: str, modified_ms: int) -> Judgement:
    """A copy's source: as a read, but "not modified" is a failure (412)."""
    judgement = judge_read(conditions, etag=etag, modified_ms=modified_ms)
    if judgement.verdict is Verdict.PROCEED:
        return PROCEED
    return Judgement(Verdict.FAILED, f"x-amz-copy-source-{judgement.header}")


def judge_write(conditions: WriteConditions, etag: str | None) -> Judgement:
    """A write over what is there now; `etag` is None when nothing is.

    If-Match on an absent key answers NoSuchKey (S3 User Guide, "Conditional writes").
    """
    if conditions.if_match is not None:
        if etag is None:
            return Judgement(Verdict.NO_SUCH_KEY, "If-Match")
        if not conditions.if_match.match(etag):
            return Judgement(Verdict.FAILED, "If-Match")
    if (
        conditions.if_none_match is not None
        and etag is not None
        and conditions.if_none_match.match(etag)
    ):
        return Judgement(Verdict.FAILED, "If-None-Match")
    return PROCEED


def judge_delete(
    conditions: DeleteConditions, *, etag: str, size_bytes: int, modified_ms: int
) -> Judgement:
    """A delete of an existing object.

    Deleting an absent one succeeds whatever the conditions (S3 API Reference, DeleteObject).
    """
    if conditions.if_match is not None and not conditions.if_match.match(etag):
        return Judgement(Verdict.FAILED, "If-Match")
    if conditions.if_match_size_bytes is not None and conditions.if_match_size_bytes != size_bytes:
        return Judgement(Verdict.FAILED, "x-amz-if-match-size")
    if (
        conditions.if_match_last_modified is not None
        and conditions.if_match_last_modified != modified_ms // 1000
    ):
        return Judgement(Verdict.FAILED, "x-amz-if-match-last-modified-time")
    return PROCEED
