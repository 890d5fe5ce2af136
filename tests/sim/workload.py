"""What clients do: random calls on few keys, written down with what was seen."""

import asyncio
import re
from typing import TYPE_CHECKING

from tests.sim.client import NOBODY, Answer, Connection, etag_of, etag_of_parts
from tests.sim.loop import Process
from tests.sim.model import Act

if TYPE_CHECKING:
    from tests.sim.world import World

BUCKET = "pots"
SIZES = (0, 1, 700, 700, 5_000, 5_000, 17_000, 40_000, 90_000, 180_000)
PART_SIZE_BYTES = 5 << 20
_NO_CHANGE = frozenset({"SlowDown", "ConditionalRequestConflict", "OperationAborted"})


class Wrong(AssertionError):
    """The store broke a promise."""


class Client:
    """One caller, one call at a time."""

    def __init__(self, world: "World", process: Process) -> None:
        self._world = world
        self._random = process.random
        self._connection = Connection(process)
        self._process = process
        self._bodies = 0

    async def act(self) -> None:
        """One random call."""
        kinds = (
            (self.put, 26),
            (self.get, 24),
            (self.head, 8),
            (self.delete, 10),
            (self.put_if_absent, 7),
            (self.put_if_same, 7),
            (self.copy, 6),
            (self.list, 8),
            (self.upload, 3),
            (self.delete_many, 2),
        )
        work = self._random.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
        self._world.operations += 1
        await work()

    # -- below -----------------------------------------------------------------------------------

    def key(self) -> str:
        return self._random.choice(self._world.keys)

    def body(self) -> bytes:
        """One that was never written before; its first bytes say by whom."""
        self._bodies += 1
        size = self._random.choice(SIZES)
        head = f"{self._process.name}/{self._bodies}/".encode()
        if size < len(head):
            return head
        return head + self._random.randbytes(size - len(head))

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        gateway = self._random.choice(self._world.gateways)
        answer = await self._connection.send(gateway, method, path, body, headers)
        self._world.note_answer(method, path, answer)
        return answer

    def begin(self, key: str, kind: str, **facts: object) -> Act:
        act = Act(key, kind, self._process.loop.time(), **facts)  # type: ignore[arg-type]
        act.said = self._process.name
        self._world.history.acts.append(act)
        return act

    def end(self, act: Act, answer: Answer) -> None:
        """Note how a write or end went."""
        if answer.status in (200, 204):
            act.returned = self._process.loop.time()
        elif answer.status == 412 or (answer.status == 404 and act.needs):
            act.returned, act.refused = self._process.loop.time(), True
        elif answer.status == 409 or answer.code in _NO_CHANGE:
            self._world.history.acts.remove(act)
        elif answer.status == 0 or answer.status >= 500:
            act.unsure = True
        else:
            raise Wrong(f"{act}: answered {answer.status} {answer.code}")

    # -- calls -----------------------------------------------------------------------------------

    async def put(self, needs: str = "", key: str = "") -> None:
        body = self.body()
        etag = etag_of(body)
        self._world.bodies[etag] = body
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

    async def put_if_same(self) -> None:
        key = self.key()
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
            self._world.history.acts.remove(act)
            if answer.status not in (0, 503):
                raise Wrong(f"{act}: answered {answer.status} {answer.code}")

    async def get(self, key: str = "") -> Answer:
        act = self.begin(key or self.key(), "read")
        answer = await self.send("GET", f"/{BUCKET}/{act.key}")
        self.seen(act, answer)
        if answer.status == 200 and self._world.bodies.get(answer.etag) != answer.body:
            raise Wrong(f"{act}: {len(answer.body)} bytes that nobody wrote")
        return answer

    async def head(self) -> None:
        act = self.begin(self.key(), "read")
        self.seen(act, await self.send("HEAD", f"/{BUCKET}/{act.key}"))

    async def delete(self) -> None:
        act = self.begin(self.key(), "end")
        self.end(act, await self.send("DELETE", f"/{BUCKET}/{act.key}"))

    async def delete_many(self) -> None:
        keys = self._random.sample(self._world.keys, 3)
        acts = [self.begin(key, "end") for key in keys]
        listed = "".join(f"<Object><Key>{key}</Key></Object>" for key in keys)
        body = f"<Delete>{listed}</Delete>".encode()
        headers = {"content-md5": _md5_header(body)}
        answer = await self.send("POST", f"/{BUCKET}?delete", body, headers)
        failed = set(re.findall(rb"<Error><Key>([^<]*)</Key>", answer.body))
        for act in acts:
            self.end(act, NOBODY if act.key.encode() in failed else answer)

    async def copy(self) -> None:
        source, target = self._random.sample(self._world.keys, 2)
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
        if answer.status == 404:
            read.value, read.returned = None, self._process.loop.time()
            self._world.history.acts.remove(write)
            return
        self._world.history.acts.remove(read)
        self.end(write, answer)
        if write.unsure:
            write.choices = ("?" + source,)

    async def list(self) -> None:
        acts = [self.begin(key, "read") for key in self._world.keys]
        answer = await self.send("GET", f"/{BUCKET}?list-type=2")
        if answer.status != 200:
            for act in acts:
                self._world.history.acts.remove(act)
            return
        now = self._process.loop.time()
        found = dict(
            re.findall(
                r"<Key>([^<]*)</Key>.*?<ETag>(?:&quot;|\")?([0-9a-f-]+)",
                answer.body.decode(),
                re.DOTALL,
            )
        )
        if not set(found) <= set(self._world.keys):
            raise Wrong(f"a listing names keys that nobody wrote: {sorted(found)}")
        for act in acts:
            act.value, act.returned, act.said = found.get(act.key), now, act.said + " list"

    async def upload(self) -> None:
        """A multipart upload, of one or two parts."""
        key = self.key()
        started = await self.send("POST", f"/{BUCKET}/{key}?uploads")
        found = re.search(rb"<UploadId>([^<]+)</UploadId>", started.body)
        if found is None:
            return
        upload = found[1].decode()
        parts = [self.body() for _ in range(1)]
        for number, part in enumerate(parts, 1):
            where = f"/{BUCKET}/{key}?partNumber={number}&uploadId={upload}"
            answer = await self.send("PUT", where, part)
            if answer.status != 200:
                return  # left to the keeper
        if self._random.random() < 0.2:
            await self.send("DELETE", f"/{BUCKET}/{key}?uploadId={upload}")
            return
        etag = etag_of_parts(parts)
        self._world.bodies[etag] = b"".join(parts)
        listed = "".join(
            f'<Part><PartNumber>{number}</PartNumber><ETag>"{etag_of(part)}"</ETag></Part>'
            for number, part in enumerate(parts, 1)
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        act = self.begin(key, "write", value=etag)
        answer = await self.send("POST", f"/{BUCKET}/{key}?uploadId={upload}", body)
        if answer.status == 200 and b"<Error>" in answer.body:
            answer = NOBODY
        self.end(act, answer)


def _md5_header(body: bytes) -> str:
    import base64
    import hashlib

    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


async def pause(process: Process, longest: float) -> None:
    """Think a while."""
    await asyncio.sleep(process.random.uniform(0.0, longest))
