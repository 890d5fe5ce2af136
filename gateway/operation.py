"""An S3 operation as a value: what it matches, what it needs, how it is carried out."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gateway.s3.message import Principal, S3Request, S3Response

if TYPE_CHECKING:
    from gateway.context import Context

In = TypeVar("In")
Out = TypeVar("Out")


class Resource(StrEnum):
    """What the path names. Of text, whose hash Python keeps: each request is looked up by it."""

    SERVICE = "service"
    BUCKET = "bucket"
    OBJECT = "object"


@dataclass(frozen=True, slots=True)
class Match:
    """Method, resource, and the query arguments and headers that must be present.

    An entry "list-type=2" demands that value, "uploads" mere presence. Rows are ranked by how much
    they require; two rows of equal rank that both match answer InvalidArgument.
    """

    method: str
    resource: Resource
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation(Generic[In, Out]):
    """One row of the registry. `name` is S3's own and labels logs and metrics.

    `document_limit_bytes` > 0: the body is read whole (and its checksums verified) before `decode`.
    `permission` is the policy action. Authorisation: the pipeline gives the principal an admission
    (`gateway.authorization`) unless it is plainly the owner; handlers read buckets and objects
    through `Context.metadata`, which asks it about what was read. `length_required`: a body without Content-Length
    is refused. `body_checksums` is false where x-amz-checksum-* describe something else than the
    request's body (CompleteMultipartUpload: the object). `authenticates_itself`: the body says who
    asks (PostObject's form), so anonymous requests reach `handle`, which demands a proof before it
    acts, and then sets the request's principal and key. `handle_now` is for requests without a body
    that are plainly the caller's own: the same as `handle` without waiting, or None, and then nothing
    was done.
    """

    name: str
    match: Match
    permission: str
    decode: Callable[[S3Request], In]
    handle: Callable[["Context", In], Awaitable[Out]]
    encode: Callable[[Out], S3Response]
    document_limit_bytes: int = 0
    length_required: bool = False
    body_checksums: bool = True
    authenticates_itself: bool = False
    handle_now: Callable[["Context", In], Out | None] | None = None


AnyOperation = Operation[Any, Any]


def principal_of(request: S3Request) -> Principal:
    """Who asks; the pipeline has put somebody there, be it the anonymous principal."""
    assert request.principal is not None
    return request.principal
