"""Limits and deadlines of the HTTP port."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """All of them hold for each worker process. Deadlines are checked once a second."""

    head_bytes_max: int = 16 * 1024
    headers_max: int = 100
    receive_buffer_bytes: int = 64 * 1024
    """Unread bytes held for a connection before reading pauses; one read may overshoot it."""
    drain_bytes_max: int = 256 * 1024
    """A body left unread is swallowed up to this size, so that the connection lives on."""
    linger_bytes_max: int = 16 * 1024 * 1024
    """What is swallowed after the last answer, so that the client can still read it."""
    connections_max: int = 8192
    requests_max: int = 1024
    body_memory_bytes_max: int = 256 * 1024 * 1024
    body_memory_request_bytes_max: int = 4 * 1024 * 1024
    """The longest document that an operation takes: CompleteMultipartUpload's."""
    body_memory_stream_bytes: int = 1024 * 1024
    """What a longer body holds beside the buffers that large writes share."""

    head_seconds: float = 20.0
    """From the first byte of a head to its end."""
    idle_seconds: float = 75.0
    """A connection between requests."""
    body_stall_seconds: float = 30.0
    write_stall_seconds: float = 60.0
    progress_bytes_min: int = 1024
    """What a stalling client has to send or accept for its deadline to start anew."""
    drain_seconds: float = 10.0
    linger_seconds: float = 3.0

    def __post_init__(self) -> None:
        assert self.head_bytes_max > 0
        assert self.receive_buffer_bytes >= self.head_bytes_max
        assert self.requests_max > 0
        assert self.body_memory_request_bytes_max <= self.body_memory_bytes_max
        assert self.body_memory_stream_bytes <= self.body_memory_request_bytes_max
        assert self.progress_bytes_min > 0
