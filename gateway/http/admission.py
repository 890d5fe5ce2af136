"""Admission control: how many requests a worker serves at once, and how much they may buffer."""

from dataclasses import dataclass


@dataclass(slots=True)
class Admission:
    """Counts requests and the memory their bodies may need; refuses what exceeds the bounds.

    A body counts with its length up to `body_request_bytes_max`, the longest that an operation
    takes into memory whole; a chunked one counts with that. A longer body can only stream, through
    buffers that have a bound of their own: it counts with `body_stream_bytes`. Refused requests are
    to be answered with SlowDown.
    """

    requests_max: int
    body_bytes_max: int
    body_request_bytes_max: int
    body_stream_bytes: int
    requests: int = 0
    body_bytes: int = 0
    refused_total: int = 0

    def cost_bytes(self, size_bytes: int | None) -> int:
        """What a body of that length counts for."""
        if size_bytes is None:
            return self.body_request_bytes_max
        return size_bytes if size_bytes <= self.body_request_bytes_max else self.body_stream_bytes

    def enter(self, cost_bytes: int) -> bool:
        """Admit a request; `leave` must follow when this is True."""
        if self.requests >= self.requests_max or self.body_bytes + cost_bytes > self.body_bytes_max:
            self.refused_total += 1
            return False
        self.requests += 1
        self.body_bytes += cost_bytes
        return True

    def leave(self, cost_bytes: int) -> None:
        """The request is over."""
        self.requests -= 1
        self.body_bytes -= cost_bytes
        assert self.requests >= 0
        assert self.body_bytes >= 0
