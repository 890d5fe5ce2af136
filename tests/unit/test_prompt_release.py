"""What a request held goes with its last reference. What is left to the collector of cycles piles up
until that comes (`ops.process.GC_THRESHOLD`): a hundred megabytes where it holds a body's bytes."""

import asyncio
import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from gateway.app import Gateway
from gateway.authorization import RequestAdmission
from gateway.http.message import HttpRequest
from gateway.metrics import RequestCounts
from gateway.objects.reader import BlobReader
from gateway.operations.registry import OPERATIONS
from gateway.s3.chunked import ChunkedDecoder
from gateway.s3.message import S3Request
from tests.unit import test_admission as admission
from tests.unit import test_objects as objects
from tests.unit.metadata_doubles import Rig
from tests.unit.test_chunked import DATA, FORMS, encode, payload_of


@dataclass
class Left:
    """How many objects of some classes a block left behind."""

    count: int = -1


@contextmanager
def left_of(*kinds: type) -> Iterator[Left]:
    """Counts at the block's end, without a collection meanwhile."""
    left = Left()
    gc.collect()
    gc.disable()
    try:
        before = _count(kinds)
        yield left
        left.count = _count(kinds) - before
    finally:
        gc.enable()


def _count(kinds: tuple[type, ...]) -> int:
    return sum(1 for thing in gc.get_objects() if isinstance(thing, kinds))


def test_a_read_that_did_not_wait_for_all_it_asked() -> None:
    data = random.Random(1).randbytes(objects.LARGE)

    async def scenario(f: objects.Fixture) -> None:
        stored = await f.write(data)
        for node in f.nodes.values():
            next(iter(node.drives.values())).slow_seconds = 0.5  # a spare comes before it
        with left_of(BlobReader) as left:
            assert await f.read(stored) == data
            await asyncio.sleep(0)  # what was cancelled ends
        assert f.nodes["n0"].calls.count("get") > 1
        assert left.count == 0

    objects.run(objects.three_nodes(), scenario)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("here", [True, False])
def test_a_chunked_body(form: str, here: bool) -> None:
    async def read() -> None:
        payload = payload_of(encode(DATA[:9000], form), 9000, form, here=here)
        assert await payload.read_all(9000) == DATA[:9000]

    with left_of(ChunkedDecoder) as left:
        asyncio.run(read())
    assert left.count == 0


def test_a_request_that_needed_an_admission() -> None:
    async def scenario(rig: Rig) -> None:
        await admission.open_up(rig)
        gateway = Gateway(admission.context_of(rig), OPERATIONS, domains=(), counts=RequestCounts())

        async def ask(method: str, target: bytes) -> int:
            http = HttpRequest(
                method, target, {"host": "h"}, admission.Unreadable(0), False, "", 0.0, "id"
            )
            return (await admission.answer_of(gateway, http)).status

        with left_of(RequestAdmission, S3Request) as left:
            assert await ask("GET", b"/bucket/pub/missing") == 403
            assert await ask("PUT", b"/bucket/k") == 403
        assert left.count == 0

    admission.run(scenario)
