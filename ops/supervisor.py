"""The supervisor of `ostraka serve`: holds the listening sockets, starts the processes, replaces
those that end, and stops them in order.

It does nothing else, so that nothing else can bring it down. A replaced worker inherits the same
listening socket: connections that wait in its queue are not reset.

A process that lives but whose event loop stands still (stopped by a signal, hung) is killed and
replaced: decision 0027.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from ops.config import HUNG_SECONDS
from ops.heartbeats import Heartbeats
from ops.settings import ProcessSettings

START_TIMEOUT_SECONDS = 120.0
DRAIN_SECONDS = 30.0
_RESTART_PAUSE_SECONDS = 0.2
_RESTART_PAUSE_SECONDS_MAX = 10.0
_CALM_SECONDS = 30.0
CHECK_SECONDS = 2.0
HUNG_DEFAULT_SECONDS = 30.0
HUNG_SECONDS_MIN = 5.0
HUNG_SECONDS_MAX = 3600.0
"""A process whose event loop stood still for so long is replaced."""
HUNG_FACTORS = {"storage": 2.0}
"""The storage process is given more time: without it nothing can be written, so it must not be killed
for a busy minute."""
DEATH_SECONDS = 10.0
"""A killed process that waits in the kernel for a disk dies when that answers. After this time
another takes its place all the same, save for the storage process, whose locks it still holds."""


def hung_seconds() -> float:
    """How long a process may stand still: half a minute, or what the environment says."""
    try:
        said = float(os.environ.get(HUNG_SECONDS, HUNG_DEFAULT_SECONDS))
    except ValueError:
        return HUNG_DEFAULT_SECONDS
    return said if HUNG_SECONDS_MIN <= said <= HUNG_SECONDS_MAX else HUNG_DEFAULT_SECONDS


class StartFailed(Exception):
    """A process refused to start; the message is its sentence."""


@dataclass(slots=True)
class Child:
    """One process of the store and how it has fared."""

    name: str
    settings: ProcessSettings
    descriptors: tuple[int, ...]
    process: subprocess.Popen[bytes] | None = None
    status: int = -1
    started: float = 0.0
    pause_seconds: float = _RESTART_PAUSE_SECONDS
    restart_at: float = 0.0
    words: bytearray = field(default_factory=bytearray)
    killed_at: float | None = None


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound, listening, inheritable socket that has the port to itself. Raises OSError."""
    return _listening(_bound(host, port, joins=False))


def listening_sockets(host: str, port: int, count: int) -> list[socket.socket]:
    """So many sockets on one port, among which the kernel spreads connections. Raises OSError.

    The first is bound alone and lets others in only then: with SO_REUSEPORT from the beginning a
    second store would join the first one's port unnoticed, and answer half of its clients.
    """
    first = _bound(host, port, joins=False)
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _listening(first)
    port = first.getsockname()[1]
    return [first, *(_listening(_bound(host, port, joins=True)) for _ in range(1, count))]


def _bound(host: str, port: int, *, joins: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if joins:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _listening(listener: socket.socket) -> socket.socket:
    listener.listen(2048)
    listener.setblocking(False)
    listener.set_inheritable(True)
    return listener


class Supervisor:
    """Runs children given in start order; stops them in reverse groups."""

    def __init__(
        self,
        children: list[Child],
        report: Callable[[str], None],
        *,
        start_timeout_seconds: float | None = START_TIMEOUT_SECONDS,
    ) -> None:
        """`start_timeout_seconds` None: what a child waits for may take as long as it likes."""
        self._children = children
        self._start_timeout_seconds = start_timeout_seconds
        self._report = report
        self._hung_seconds = hung_seconds()
        self._stopping = False
        self._hung_up = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._heartbeats = Heartbeats(len(children), CHECK_SECONDS)
        self._dying: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start every child and wait until each is ready. Raises StartFailed."""
        signal.set_wakeup_fd(self._wake_write)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop_requested)
        signal.signal(signal.SIGHUP, self._hang_up)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        storage = self._children[0]
        self._launch(storage)
        self._await_ready(storage)
        for child in self._children[1:]:
            self._launch(child)
        for child in self._children[1:]:
            self._await_ready(child)

    def _stop_requested(self, *_: object) -> None:
        self._stopping = True

    def _hang_up(self, *_: object) -> None:
        self._hung_up = True

    def _reopen_logs(self) -> None:
        """SIGHUP: workers open their access log's file again; without such a file it means to
        stop, as when the terminal goes."""
        self._hung_up = False
        workers = [child for child in self._children if child.settings.role == "worker"]
        if all(child.settings.access_log in ("", "-") for child in workers):
            self._stopping = True
        for child in workers:
            if child.process is not None and not self._stopping:
                child.process.send_signal(signal.SIGHUP)

    def run(self) -> None:
        """Replace what ends until a signal asks to stop."""
        while not self._stopping:
            if self._hung_up:
                self._reopen_logs()
                continue
            now = time.monotonic()
            self._heartbeats.check(now)
            self._dying = [process for process in self._dying if process.poll() is None]
            for slot, child in enumerate(self._children):
                self._end_if_hung(slot, child, now)
                if child.process is not None and (status := child.process.poll()) is not None:
                    self._ended(child, status, now)
                if child.process is None and now >= child.restart_at:
                    self._launch(child)
            pending = [c.restart_at - now for c in self._children if c.process is None]
            self._wait(min([*pending, CHECK_SECONDS]))

    def _end_if_hung(self, slot: int, child: Child, now: float) -> None:
        process, role = child.process, child.settings.role
        if process is None or process.poll() is not None:
            return
        if child.killed_at is None:
            silent = self._heartbeats.silent_seconds(slot)
            if silent >= self._hung_seconds * HUNG_FACTORS.get(role, 1.0):
                self._report(f"{child.name} has stood still for {silent:.0f} s; it is killed")
                # Unlike SIGTERM this ends a stopped process, too: it does not wake again.
                process.kill()
                child.killed_at = now
        elif now - child.killed_at >= DEATH_SECONDS and role != "storage":
            self._dying.append(process)
            self._ended(child, process.returncode, now)

    def _ended(self, child: Child, status: int | None, now: float) -> None:
        self._close_status(child)
        words = child.words.decode(errors="replace").strip()
        how = "is dying" if status is None else f"ended with status {status}"
        self._report(f"{child.name} {how} {words}; starting it again")
        if now - child.started > _CALM_SECONDS:
            child.pause_seconds = _RESTART_PAUSE_SECONDS
        child.process = child.killed_at = None
        child.restart_at = now + child.pause_seconds
        child.pause_seconds = min(child.pause_seconds * 2, _RESTART_PAUSE_SECONDS_MAX)

    def tell(self, role: str, number: int) -> None:
        """Send a signal to the children of a role."""
        for child in self._children:
            if child.settings.role == role and child.process is not None:
                child.process.send_signal(number)

    def stop(self) -> None:
        """Workers drain first, then the keeper or admin process, last the storage process."""
        self._stopping = True
        order = ("worker", "keeper", "admin", "storage")
        for role in order:
            self._stop_group([c for c in self._children if c.settings.role == role])

    def _stop_group(self, group: list[Child]) -> None:
        running = [child.process for child in group if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + DRAIN_SECONDS
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _wait(self, seconds: float) -> None:
        descriptors = [self._wake_read, *(c.status for c in self._children if c.status >= 0)]
        ready, _, _ = select.select(descriptors, [], [], max(0.0, seconds))
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        for child in self._children:
            if child.status in ready:
                self._read_status(child)

    def _read_status(self, child: Child) -> None:
        data = os.read(child.status, 4096)
        child.words += data
        if not data:
            self._close_status(child)

    def _close_status(self, child: Child) -> None:
        if child.status >= 0:
            os.close(child.status)
            child.status = -1

    def _await_ready(self, child: Child) -> None:
        patience = self._start_timeout_seconds
        deadline = None if patience is None else time.monotonic() + patience
        while b"\n" not in child.words:
            if self._stopping:
                raise StartFailed("interrupted while starting")
            assert child.process is not None
            ended = child.process.poll() is not None
            if child.status >= 0:
                self._wait(0.0 if ended else 0.5)
            if ended and b"\n" not in child.words:
                raise StartFailed(f"the {child.name} process ended while starting")
            if deadline is not None and time.monotonic() > deadline:
                raise StartFailed(f"the {child.name} process did not become ready in time")
        line = child.words.decode(errors="replace").partition("\n")[0]
        if line.startswith("refused "):
            raise StartFailed(line.removeprefix("refused "))
        child.words.clear()

    def _launch(self, child: Child) -> None:
        self._close_status(child)
        child.words.clear()
        read_end, write_end = os.pipe()
        slot, heartbeats = self._children.index(child), self._heartbeats
        heartbeats.reset(slot)
        settings = msgspec.structs.replace(
            child.settings,
            status_fd=write_end,
            heartbeat_fd=heartbeats.descriptor,
            heartbeat_slot=slot,
        )
        child.process = subprocess.Popen(
            # -P: a package `ops` in the present folder is somebody else's.
            [sys.executable, "-P", "-m", "ops.process", settings.role, str(os.getpid())],
            stdin=subprocess.PIPE,
            pass_fds=(*child.descriptors, write_end, heartbeats.descriptor),
        )
        os.close(write_end)
        child.status = read_end
        child.started = time.monotonic()
        assert child.process.stdin is not None
        try:
            child.process.stdin.write(msgspec.json.encode(settings))
            child.process.stdin.close()
        except BrokenPipeError:
            return  # it ended at once: seen by the next poll
