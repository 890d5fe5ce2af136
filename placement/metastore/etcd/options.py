"""How to reach etcd: members, TLS, credentials, deadlines."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

_PORT_DEFAULT = 2379


@dataclass(frozen=True, slots=True)
class EtcdOptions:
    """Everything a client needs. Raises ValueError for what cannot work."""

    endpoints: tuple[str, ...]
    """`http://host:port` or `https://host:port`, one a member; all of one kind."""
    ca: bytes | None = None
    """PEM of the authorities that sign the members' certificates; None: the system's."""
    certificate: bytes | None = None
    """PEM of the client's certificate chain; its CN is the user where etcd checks certificates."""
    key: bytes | None = field(default=None, repr=False)
    """PEM of the client's key."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout_seconds: float = 5.0
    """A whole call: every member that is tried, and the pauses between."""
    attempt_seconds: float = 2.5
    """One member's answer, when there is another member to ask."""
    watch_resume_seconds: float = 10.0
    """How long a watch tries to resume before it says that the connection is lost."""
    reads_in_flight: int = 2
    """Batches of reads under way at once; what comes meanwhile goes into the next."""
    writes_in_flight: int = 2
    """Batches of transactions under way at once."""

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ValueError("no etcd endpoint is given")
        schemes = {_split(url)[0] for url in self.endpoints}
        if len(schemes) > 1:
            raise ValueError("etcd endpoints are either all http or all https")
        if schemes == {"http"} and (self.ca or self.certificate or self.key):
            raise ValueError("certificates are given, but the etcd endpoints are not https")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client certificate and its key come together")
        if (self.user is None) != (self.password is None):
            raise ValueError("an etcd user and its password come together")
        seconds = (self.timeout_seconds, self.attempt_seconds, self.watch_resume_seconds)
        if min(seconds) <= 0 or min(self.reads_in_flight, self.writes_in_flight) < 1:
            raise ValueError("deadlines and numbers of batches are positive")

    @property
    def tls(self) -> bool:
        """Whether the members speak TLS."""
        return _split(self.endpoints[0])[0] == "https"

    @property
    def addresses(self) -> tuple[str, ...]:
        """`host:port` of each member."""
        return tuple(_split(url)[1] for url in self.endpoints)


def _split(url: str) -> tuple[str, str]:
    """(scheme, host:port)."""
    parts = urlsplit(url)
    try:
        port = parts.port or _PORT_DEFAULT
    except ValueError as error:
        raise ValueError(f"{url!r} has no valid port") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{url!r} is not http://host:port or https://host:port")
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"{url!r} has more than a host and a port")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts.scheme, f"{host}:{port}"
