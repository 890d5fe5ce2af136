"""The access log: one line a request (format: ops/docs/access-log.md), written off the loop."""

import asyncio
import contextlib
import logging
import os
import queue
import re
import stat
import threading
import time
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from gateway.http.message import HttpRequest
from placement.clock import Clock

logger = logging.getLogger("ostraka.http")

_FLUSH_SECONDS = 0.5
_FLUSH_LINES = 512
_WAITING_BYTES_MAX = 8 * 1024 * 1024
_PIPE_WRITE_BYTES = 4096
"""PIPE_BUF: several workers on one pipe do not mix their lines below it."""
_AGENT_CHARACTERS_MAX = 256
_TARGET_CHARACTERS_MAX = 2048
_CLOSE_SECONDS = 5.0
_REOPEN = b""
"""In the thread's queue: no lines, but the wish for a new file."""
_STDOUT = 1
_KEY_SAFE = "!$&'()*+,-./:;=@_~"
_PLAIN = re.compile(rf"[A-Za-z0-9{re.escape(_KEY_SAFE)}]*", re.ASCII)
"""What `quote` would leave as it is."""


def format_line(request: HttpRequest, *, at_ns: int) -> str:
    """The line of a finished request, line feed included. Secrets and queries never appear."""
    seconds, nanoseconds = divmod(at_ns, 1_000_000_000)
    agent = request.headers.get("user-agent", "")[:_AGENT_CHARACTERS_MAX]
    return (
        f"{_moment(seconds)}.{nanoseconds // 1_000_000:03d}Z {request.remote or '-'} {request.request_id}"
        f" {request.operation or '-'} {_quoted(request.bucket)} {_quoted(request.key)}"
        f" {request.status} {request.error_code or '-'} {request.bytes_in} {request.bytes_out}"
        f" {request.total_seconds * 1000:.3f} {request.first_byte_seconds * 1000:.3f}"
        f' {_quoted(request.access_key)} "{_agent(agent)}"\n'
    )


@lru_cache(maxsize=2)
def _moment(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


@lru_cache(maxsize=256)
def _agent(agent: str) -> str:
    return quote(agent, safe=" " + _KEY_SAFE)


def _quoted(text: str) -> str:
    if not text:
        return "-"
    if len(text) <= _TARGET_CHARACTERS_MAX and _PLAIN.fullmatch(text) is not None:
        return text
    return quote(text[:_TARGET_CHARACTERS_MAX], safe=_KEY_SAFE, errors="replace")


class AccessLog:
    """Collects lines and hands them to a thread, at most half a second later.

    A full disk or a reader of stdout that stalls costs lines, never requests: beyond 8 MiB of
    waiting lines new ones are counted in `lost_total` and dropped. `path` None writes to stdout.
    """

    def __init__(self, path: Path | None, *, clock: Clock) -> None:
        self.lost_total = 0
        self._path = path
        self._clock = clock
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._descriptor = self._open()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def write(self, request: HttpRequest) -> None:
        """Log a finished request; on the event loop."""
        self._lines.append(format_line(request, at_ns=self._clock.now_ns()))
        if len(self._lines) >= _FLUSH_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Hand the collected lines to the thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if not lines:
            return
        block = "".join(lines).encode()
        with self._lock:
            full = self._waiting_bytes + len(block) > _WAITING_BYTES_MAX
            if full:
                self.lost_total += len(lines)
            else:
                self._waiting_bytes += len(block)
        if not full:
            self._queue.put(block)

    def reopen(self) -> None:
        """After rotation: what is logged from now on goes to a new file of the same name."""
        self.flush()
        self._queue.put(_REOPEN)

    async def close(self) -> None:
        """Write what is left, waiting a few seconds at most."""
        self.flush()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, _CLOSE_SECONDS)

    def _open(self) -> int:
        if self._path is None:
            return os.dup(_STDOUT)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(self._path, flags, 0o640)

    def _run(self) -> None:
        while (block := self._queue.get()) is not None:
            if block is _REOPEN:
                self._replace_file()
                continue
            try:
                self._write_block(block)
            except OSError as error:
                self.lost_total += block.count(b"\n")
                logger.warning("access log: %s", error)
            with self._lock:
                self._waiting_bytes -= len(block)
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def _replace_file(self) -> None:
        try:
            descriptor = self._open()
        except OSError as error:
            logger.warning("access log: cannot reopen: %s", error)
            return
        os.close(self._descriptor)
        self._descriptor = descriptor

    def _write_block(self, block: bytes) -> None:
        """Write it whole; to a pipe in pieces that end with a line."""
        limit = len(block)
        if stat.S_ISFIFO(os.fstat(self._descriptor).st_mode):
            limit = _PIPE_WRITE_BYTES
        start = 0
        while start < len(block):
            end = len(block)
            if end - start > limit:
                end = block.rfind(b"\n", start, start + limit) + 1 or block.index(b"\n", start) + 1
            start += os.write(self._descriptor, memoryview(block)[start:end])
