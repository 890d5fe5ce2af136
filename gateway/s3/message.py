"""S3 requests and responses as values: no sockets, no frameworks."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Protocol

import msgspec

Buffer = bytes | bytearray | memoryview
BUCKET_REGION: Final = "x-amz-bucket-region"
"""The response header that tells a client where a bucket is, refusals included."""


class Body(Protocol):
    """A request body as the operation sees it: decoded from aws-chunked, bounded, verified.

    `size_bytes` is the decoded length; S3 always demands one (Content-Length or
    x-amz-decoded-content-length), so it is known. Memory: nothing is buffered beyond the socket's
    receive buffer. Reading raises `S3Error` (IncompleteBody, a bad chunk signature, …) or
    `ClientDisconnected`.
    """

    size_bytes: int

    async def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer; fewer bytes than its length only at the body's end, 0 after it."""
        ...

    async def read_all(self, limit_bytes: int) -> bytes:
        """The whole (rest of the) body; S3Error ENTITY_TOO_LARGE beyond the limit. For small ones."""
        ...

    @property
    def trailers(self) -> dict[str, str]:
        """Trailing headers (lower case), complete once the body has been read to its end."""
        ...


class Stream(Protocol):
    """A response body that is produced while it is sent. `first` was already verified."""

    size_bytes: int

    def chunks(self) -> AsyncIterator[Sequence[Buffer]]:
        """Groups of buffers in order, all of them; each group is free for reuse after the next is
        asked for. An exception after the first group cuts the connection.
        """
        ...


class Admission(Protocol):
    """Decides, for one request, whether what it asks for is permitted. Raises S3Error AccessDenied.

    The arguments are the entries that the metadata repository read.
    """

    def to_bucket(self, entry: Any) -> None:
        """To a bucket, or to a place in it of which nothing is known."""
        ...

    def to_object(self, entry: Any, current: Any) -> None:
        """To an object, or to a place in a bucket where there is none (None)."""
        ...


NOT_PLAIN: Final = "-"


class Session(msgspec.Struct, frozen=True):
    """What a principal with temporary credentials is. `role_arn` is empty when it is what it was
    before; `policy` (as read, or None) is what it was narrowed to; `expires_ms` counts since 1970."""

    arn: str
    expires_ms: int
    role_arn: str = ""
    policy: Any = None


class Principal(msgspec.Struct, frozen=True):
    """Who asks. `is_root` is said of the store's own first account, of its root only.

    `user` is empty for an account's root, and for who plays a role (`session.role_arn`). `plain_account` is the account when its root asks for
    what is plainly its own, and NOT_PLAIN when `admission` must be asked, or an identity's policies
    (`policies`, as `gateway.domain.policy` has read them) must. `tags` are those of the user or role.
    """

    account_id: str
    canonical_id: str
    name: str
    email: str
    access_key: str
    is_root: bool = False
    user: str = ""
    user_id: str = ""
    user_path: str = "/"
    policies: tuple[Any, ...] = ()
    plain_account: str = ""
    admission: Admission | None = None
    session: Session | None = None
    tags: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Who is neither a user, nor plays a role, nor brings an admission is plain."""
        if not self.plain_account:
            plain = not self.user and self.admission is None and not self.role_arn
            msgspec.structs.force_setattr(
                self, "plain_account", self.account_id if plain else NOT_PLAIN
            )

    @property
    def arn(self) -> str:
        """The principal's ARN; of the root for an account."""
        if self.session is not None:
            return self.session.arn
        if not self.user:
            return f"arn:aws:iam::{self.account_id}:root"
        return f"arn:aws:iam::{self.account_id}:user{self.user_path}{self.user}"

    @property
    def role_arn(self) -> str:
        """The ARN of the role that is played; empty for everybody else."""
        return "" if self.session is None else self.session.role_arn

    @property
    def session_policy(self) -> Any:
        """What a session was narrowed to; None when there is no such bound."""
        return None if self.session is None else self.session.policy


class S3Request(msgspec.Struct):
    """One request after addressing. Header names are lower case, repeated ones joined with ",".

    Header values are the received bytes decoded as latin-1 (so nothing is lost: signatures cover
    bytes, and metadata comes back as it was sent), without surrounding blanks.

    `query` maps each decoded name to its decoded value ("" when it has none); a name given twice
    keeps its first value. `raw_path` and `raw_query` are the bytes as received (for signatures).
    `document` is the whole body for operations that take one (XML), read before `decode`.
    """

    method: str
    bucket: str | None
    key: str | None
    query: dict[str, str]
    headers: dict[str, str]
    raw_path: bytes
    raw_query: bytes
    body: Body
    request_id: str
    secure: bool = False
    remote: str = ""
    principal: Principal | None = None
    document: bytes = b""
    virtual_host: bool = False
    """The bucket came from the Host header."""


class S3Response(msgspec.Struct):
    """Status, headers in order of sending, and bytes or a stream. The HTTP layer adds Date, Server,
    x-amz-request-id, x-amz-id-2 and Content-Length (`content_length` when the body is not sent, as
    for HEAD).
    """

    status: int = 200
    headers: list[tuple[str, str]] = []
    body: bytes | Stream = b""
    content_length: int | None = None
