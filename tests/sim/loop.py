"""An event loop on virtual time, and processes on it that can stop between two steps, for good or a while.

Every task and callback belongs to the process in whose context it was made. When a process dies its
steps are no longer run: nothing is cancelled, no `finally` is entered, as after `kill -9`.
"""

import asyncio
import contextvars
import hashlib
import heapq
import itertools
import random
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")

WALL_START_NS = 1_900_000_000 * 10**9
_numbers = itertools.count(1)


class Process:
    """What may die on its own. `random` is its own stream, so that others' draws do not move it."""

    def __init__(self, world_seed: int, name: str, loop: "VirtualLoop") -> None:
        self.name = name
        self.loop = loop
        self.alive = True
        self.began = loop.time()
        digest = hashlib.sha256(f"{world_seed}/{name}/{loop.time()}".encode()).digest()
        self.random = random.Random(int.from_bytes(digest[:8], "big"))
        self.wall_offset_seconds = self.random.uniform(-2.0, 2.0)
        self.on_death: list[Callable[[], None]] = []
        self.still_until = 0.0
        """Until then the machine under it stands still."""
        self.held: list[asyncio.Handle] = []
        self.context = contextvars.copy_context()
        self.context.run(_process.set, self)

    def start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """A task of this process."""
        return self.loop.create_task(work, context=self.context)

    def kill(self) -> None:
        """Nothing of it runs any more."""
        if self.alive:
            self.alive = False
            self.loop.drop_dead()
            for told in self.on_death:
                told()

    def stand_still(self, seconds: float) -> None:
        """Nothing of it runs for a while, as when its machine is paused; its clocks go on."""
        if self.alive and self.loop.time() >= self.still_until:
            self.still_until = self.loop.time() + seconds
            self.loop.hold(self)

    # The clock port: monotonic time counts from the start, wall time is a little off.

    def now_ns(self) -> int:
        return WALL_START_NS + int((self.loop.time() + self.wall_offset_seconds) * 1e9)

    def monotonic(self) -> float:
        return self.loop.time() - self.began

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    # The randomness port.

    def token(self, size_bytes: int) -> bytes:
        return self.random.randbytes(size_bytes)

    def uniform(self) -> float:
        return self.random.random()


_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class _Task(asyncio.Task[Any]):
    """Hashes by its number, so that sets of tasks have one order in every run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._number = next(_numbers)
        self.process: Process | None = None
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


class _NumberedFuture(asyncio.Future[Any]):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._number = next(_numbers)
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


class _TimeSelector(selectors.DefaultSelector):
    """Waiting takes no time: it moves the clock."""

    clock = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everything waits and nothing will happen")
        self.clock += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual; threads run in line; steps of dead processes are dropped."""

    def __init__(self) -> None:
        self._time_selector = _TimeSelector()
        super().__init__(self._time_selector)
        self.set_task_factory(_make_task)  # type: ignore[arg-type]
        self.frozen: list[Any] = []
        self.steps = 0

    def time(self) -> float:
        return self._time_selector.clock

    def create_future(self) -> "asyncio.Future[Any]":
        return _NumberedFuture(loop=self)

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = super().call_soon(callback, *args, context=context)
        self.steps += 1
        if _is_dead(handle):
            self._freeze(handle)
        elif (process := _process_of(handle)) is not None and process.still_until > self.time():
            self._ready.pop()  # type: ignore[attr-defined]
            process.held.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        process = _process.get() if context is None else context.get(_process)
        if process is not None:
            when = max(when, process.still_until)
        handle = super().call_at(when, callback, *args, context=context)
        if _is_dead(handle):
            self._freeze(handle)
        return handle

    def drop_dead(self) -> None:
        """A process has died: forget what it was about to do."""
        # Kept, not collected: closing coroutines would run their `finally` clauses.
        for task in asyncio.all_tasks(self):
            if isinstance(task, _Task) and task.process is not None and not task.process.alive:
                self.frozen.append(task)
        for handle in [*self._ready, *self._scheduled]:  # type: ignore[attr-defined]
            if _is_dead(handle):
                self._freeze(handle)

    def hold(self, process: Process) -> None:
        """A process stands still: what it was about to do waits until it goes on."""
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        for place, handle in enumerate(ready):
            if _process_of(handle) is process:
                # The loop may be walking over them: how many there are must not change.
                ready[place] = asyncio.Handle(_nothing, (), self)
                process.held.append(handle)
        for timer in scheduled:
            if _process_of(timer) is process:
                timer._when = max(timer._when, process.still_until)
        heapq.heapify(scheduled)
        self.call_at(process.still_until, self._go_on, process, context=contextvars.Context())

    def _go_on(self, process: Process) -> None:
        held, process.held = process.held, []
        if process.alive:
            self._ready.extend(held)  # type: ignore[attr-defined]
        else:
            for handle in held:
                self._freeze(handle)

    def _freeze(self, handle: asyncio.Handle) -> None:
        self.frozen.append((handle._callback, handle._args))  # type: ignore[attr-defined]
        handle.cancel()

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # whoever awaits gets it
            future.set_exception(error)
        return future

    def _write_to_self(self) -> None:
        """Nobody waits for a wake-up."""


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **kwargs: Any
) -> "asyncio.Task[Any]":
    task = _Task(coroutine, loop=loop, **kwargs)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    context = kwargs.get("context")
    task.process = _process.get() if context is None else context.get(_process)
    return task


def _nothing() -> None:
    """In the place of what is held."""


def _process_of(handle: asyncio.Handle) -> Process | None:
    return handle._context.get(_process)  # type: ignore[attr-defined, no-any-return]


def _is_dead(handle: asyncio.Handle) -> bool:
    process = _process_of(handle)
    return process is not None and not process.alive


class InlineExecutor(Executor):
    """Stands in for a pool of threads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # whoever waits gets it
            future.set_exception(error)
        return future
