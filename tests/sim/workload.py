"""What clients do: random calls on few keys, written down with what was seen."""

import asyncio
import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tests.sim import buckets, quotas, uploads
from tests.sim.client import NOBODY, Answer, Connection, etag_of
from tests.sim.loop import Process
from tests.sim.model import Act, Wrong
from tests.sim.tilt import ACTS

if TYPE_CHECKING:
    from tests.sim.world import World

BUCKET = "pots"
SIZES = (0, 1, 700, 700, 5_000, 5_000, 17_000, 40_000, 90_000, 180_000)
LONG_SIZE_BYTES = 5 << 20
"""Read in several steps."""
LONG_KEY = "long"
_NO_CHANGE = frozenset({"SlowDown", "ConditionalRequestConflict", "OperationAborted"})


class Client:
    """One caller, one call at a time."""

    bucket = BUCKET

    def __init__(self, world: "World", process: Process) -> None:
        self.world = world
        self.random = process.random
        self._connection = Connection(process)
        self._process = process
        self._bodies = 0
        self.sizes: Sequence[int] = SIZES
        """Of bodies."""
        self.goes_to: Callable[[str], bool] = lambda gateway: True
        """Which gateways this client uses."""
        weights = {**ACTS, **world.tilt.acts}
        self._kinds, self._weights = list(weights), list(weights.values())

    async def act(self) -> None:
        """One random call."""
        kind = self.random.choices(self._kinds, self._weights)[0]
        await getattr(self, kind)()

    @property
    def remakes(self) -> bool:
        """Whether somebody deletes the bucket now and then."""
        return bool(self.world.remade_at)

    def remade_since(self, began: float) -> bool:
        """Whether the bucket was, or may have been, another since."""
        world = self.world
        return world.remaking or any(at > began for at in world.remade_at)

    # -- below -----------------------------------------------------------------------------------

    def key(self) -> str:
        return self.random.choice(self.world.keys)

    def body(self) -> bytes:
        """One that was never written before; its first bytes say by whom."""
        self._bodies += 1
        size = self.random.choice(self.sizes)
        head = f"{self._process.name}/{self._bodies}/".encode()
        if size < len(head):
            return head
        return head + self.random.randbytes(size - len(head))

    async def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        pace: float = 0.0,
    ) -> Answer:
        if self.world.problems:
            raise Wrong(self.world.problems[0])
        self.world.operations += 1
        gateway = self.random.choice(
            [one for one in self.world.gateways if self.goes_to(one.process.name)]
        )
        answer = await self._connection.send(gateway, method, path, body, headers, pace=pace)
        self.world.note_answer(method, path, answer)
        return answer

    def begin(self, key: str, kind: str, **facts: object) -> Act:
        act = Act(key, kind, self._process.loop.time(), **facts)  # type: ignore[arg-type]
        act.said = self._process.name
        self.world.history.acts.append(act)
        return act

    def end(self, act: Act, answer: Answer) -> None:
        """Note how a write or end went."""
        if answer.status in (200, 204):
            act.returned = self._process.loop.time()
        elif answer.code == "NoSuchBucket":
            if act.kind == "end" or act.needs:
                self.world.history.acts.remove(act)
            else:
                act.unsure = True
        elif answer.status == 412 or (answer.status == 404 and act.needs):
            act.returned, act.refused = self._process.loop.time(), True
        elif answer.status == 409 or answer.code in _NO_CHANGE:
            self.world.history.acts.remove(act)
        elif answer.status == 0 or answer.status >= 500:
            act.unsure = True
        else:
            raise Wrong(f"{act}: answered {answer.status} {answer.code}")

    def end_upload(self, act: Act, answer: Answer, upload: uploads.Upload) -> None:
        """Note how a completion that was asked for again and again went. An upload of a bucket that
        went is gone with it; a part that was not answered may still take another's place."""
        gone = answer.status == 404 and self.remade_since(upload.began)
        if answer.status == 409 or gone or (answer.code == "InvalidPart" and upload.unsure):
            act.unsure = True  # an earlier try may have been carried out
        elif answer.status == 404:
            raise Wrong(f"{act}: a completion was forgotten: {answer.code}")
        else:
            self.end(act, answer)

    # -- calls -----------------------------------------------------------------------------------

    async def put(self, needs: str = "", key: str = "") -> None:
        body = self.body()
        etag = etag_of(body)
        self.world.bodies[etag] = body
        headers = {}
        if needs:
            headers = {"if-none-match": "*"} if needs == "*" else {"if-match": f'"{needs}"'}
        act = self.begin(key or self.key(), "write", value=etag, needs=needs)
        answer = await self.send("PUT", f"/{BUCKET}/{act.key}", body, headers)
        if answer.status == 200 and answer.etag != etag:
            raise Wrong(f"{act}: the answer has ETag {answer.etag}")
        self.end(act, answer)

    async def put_if_absent(self) -> None:
        await self.put("*")

    async def put_if_same(self, key: str = "") -> None:
        key = key or self.key()
        act = self.begin(key, "read")
        answer = await self.send("HEAD", f"/{BUCKET}/{key}")
        self.seen(act, answer)
        if answer.status == 200:
            await self.put(answer.etag, key)

    def seen(self, act: Act, answer: Answer) -> None:
        """Note what a read saw."""
        if answer.status == 200:
            act.value, act.returned = answer.etag, self._process.loop.time()
        elif answer.status == 404:
            act.value, act.returned = None, self._process.loop.time()
        else:
            self.world.history.acts.remove(act)
            if answer.status not in (0, 503):
                raise Wrong(f"{act}: answered {answer.status} {answer.code}")

    async def get(self, key: str = "") -> Answer:
        act = self.begin(key or self.key(), "read")
        answer = await self.send("GET", f"/{BUCKET}/{act.key}")
        self.seen(act, answer)
        if answer.status == 200 and self.world.bodies.get(answer.etag) != answer.body:
            raise Wrong(f"{act}: {len(answer.body)} bytes that nobody wrote")
        return answer

    async def head(self) -> None:
        act = self.begin(self.key(), "read")
        self.seen(act, await self.send("HEAD", f"/{BUCKET}/{act.key}"))

    async def delete(self) -> None:
        act = self.begin(self.key(), "end")
        self.end(act, await self.send("DELETE", f"/{BUCKET}/{act.key}"))

    async def delete_many(self) -> None:
        await self.delete_keys(self.random.sample(self.world.keys, 2))

    async def delete_keys(self, keys: list[str]) -> None:
        """All of them with one call."""
        acts = [self.begin(key, "end") for key in keys]
        listed = "".join(f"<Object><Key>{key}</Key></Object>" for key in keys)
        body = f"<Delete>{listed}</Delete>".encode()
        answer = await self.send("POST", f"/{BUCKET}?delete", body, self.digest_of(body))
        failed = set(re.findall(rb"<Error><Key>([^<]*)</Key>", answer.body))
        for act in acts:
            self.end(act, NOBODY if act.key.encode() in failed else answer)

    async def copy(self) -> None:
        source, target = self.random.sample(self.world.keys, 2)
        await self.copy_of(source, target)

    async def copy_of(self, source: str, target: str) -> None:
        """An object to another key."""
        read, write = self.begin(source, "read"), self.begin(target, "write")
        answer = await self.send(
            "PUT", f"/{BUCKET}/{target}", headers={"x-amz-copy-source": f"/{BUCKET}/{source}"}
        )
        if answer.status == 200:
            found = re.search(rb"<ETag>(?:&quot;|\")?([0-9a-f-]+)", answer.body)
            assert found is not None, answer.body
            read.value = write.value = found[1].decode()
            read.returned = write.returned = self._process.loop.time()
            return
        if answer.code == "NoSuchKey":
            read.value, read.returned = None, self._process.loop.time()
            self.world.history.acts.remove(write)
            return
        self.world.history.acts.remove(read)
        self.end(write, answer)
        if write.unsure:
            write.choices = ("?" + source,)

    async def list(self) -> None:
        acts = [self.begin(key, "read") for key in self.world.keys]
        answer = await self.send("GET", f"/{BUCKET}?list-type=2")
        if answer.status not in (200, 404):
            for act in acts:
                self.world.history.acts.remove(act)
            return
        now = self._process.loop.time()
        found = dict(
            re.findall(
                r"<Key>([^<]*)</Key>.*?<ETag>(?:&quot;|\")?([0-9a-f-]+)",
                answer.body.decode(),
                re.DOTALL,
            )
        )
        if not set(found) <= {*self.world.keys, LONG_KEY}:
            raise Wrong(f"a listing names keys that nobody wrote: {sorted(found)}")
        for act in acts:
            act.value, act.returned, act.said = found.get(act.key), now, act.said + " list"

    async def rename(self) -> None:
        """An object to another key, if it is still what was seen."""
        source, target = self.random.sample(self.world.keys, 2)
        await self.rename_of(source, target)

    async def rename_of(self, source: str, target: str) -> None:
        """That one to that key."""
        look = self.begin(source, "read")
        answer = await self.send("HEAD", f"/{BUCKET}/{source}")
        self.seen(look, answer)
        if answer.status != 200:
            return
        etag = answer.etag
        end = self.begin(source, "end", needs=etag)
        write = self.begin(target, "write", value=etag)
        headers = {
            "x-amz-rename-source": f"/{source}",
            "x-amz-rename-source-if-match": f'"{etag}"',
        }
        answer = await self.send("PUT", f"/{BUCKET}/{target}?renameObject", b"", headers)
        self.end(end, answer)
        if end.refused:
            self.world.history.acts.remove(write)
        else:
            self.end(write, answer)

    async def get_slowly(self) -> None:
        """Read a long body, more slowly than it comes; somebody may replace it meanwhile."""
        if self.random.random() < 0.4:
            body = self.body()[:100] + self.random.randbytes(LONG_SIZE_BYTES)
            self.world.bodies[etag_of(body)] = body
            await self.send("PUT", f"/{BUCKET}/{LONG_KEY}", body)
            return
        answer = await self.send("GET", f"/{BUCKET}/{LONG_KEY}", pace=self.random.uniform(0.0, 4.0))
        if answer.status == 200 and self.world.bodies.get(answer.etag) != answer.body:
            raise Wrong(f"{LONG_KEY}: {len(answer.body)} bytes that nobody wrote")

    async def upload(self) -> None:
        await uploads.upload_alone(self)

    async def join_upload(self) -> None:
        await uploads.join_upload(self)

    async def remake_bucket(self) -> None:
        await buckets.remake_bucket(self)

    async def replace_same(self) -> None:
        """Every key that holds something gets another value on that condition."""
        for key in self.world.keys:
            await self.put_if_same(key)

    async def put_shared_parts(self) -> None:
        """Every upload that is worked at by several gets its parts anew."""
        for upload in list(self.world.uploads):
            await uploads.put_part(self, upload)

    async def complete_shared(self) -> None:
        """Every upload that is worked at by several is completed."""
        for upload in list(self.world.uploads):
            await uploads.complete_shared(self, upload)

    async def rewrite_all(self) -> None:
        """Every key gets another value, or none."""
        if self.random.random() < 0.5:
            await self.delete_keys(self.world.keys)
            return
        for key in self.world.keys:
            await self.put(key=key)

    async def put_version(self) -> None:
        await buckets.put_version(self)

    async def get_version(self) -> None:
        await buckets.get_version(self)

    async def put_limited(self) -> None:
        await quotas.put_limited(self)

    async def end_limited(self) -> None:
        await quotas.end_limited(self)

    @staticmethod
    def digest_of(body: bytes) -> dict[str, str]:
        """The header that some documents need."""
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        return {"content-md5": base64.b64encode(digest).decode()}


async def pause(process: Process, longest: float) -> None:
    """Think a while."""
    await asyncio.sleep(process.random.uniform(0.0, longest))
