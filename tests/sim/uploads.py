"""Multipart uploads as clients make them: alone and to the end, or several clients at one.

Who is alone with an upload may demand more: a completion that he asks for until it is answered is
carried out once and says so each time, whatever died meanwhile.
"""

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.sim.client import NOBODY, Answer, etag_of, etag_of_parts
from tests.sim.model import Act, Wrong

if TYPE_CHECKING:
    from tests.sim.workload import Client

SHARED_MAX = 3
TRIES = 12
REFUSALS_MAX = 6


@dataclass(eq=False)
class Upload:
    """One upload and what its parts may be: the ETag of each number that was answered last."""

    key: str
    upload_id: str
    bucket: str
    began: float
    unsure: bool = False
    """Some part was not answered: whether and when it is taken nobody knows."""
    parts: dict[int, str] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    """ETags of parts for which somebody asked for the completion: who asks again may be told what
    was done before."""

    @property
    def path(self) -> str:
        return f"/{self.bucket}/{self.key}?uploadId={self.upload_id}"


async def begin(client: "Client", key: str) -> Upload | None:
    """A new upload."""
    began = client.world.loop.time()
    answer = await client.send("POST", f"/{client.bucket}/{key}?uploads")
    found = re.search(rb"<UploadId>([^<]+)</UploadId>", answer.body)
    return None if found is None else Upload(key, found[1].decode(), client.bucket, began)


async def put_part(client: "Client", upload: Upload, number: int = 1) -> Answer:
    """A new body for one part."""
    body = client.body()
    etag = etag_of(body)
    client.world.bodies[etag] = body
    client.world.bodies[etag_of_parts([body])] = body
    where = f"/{upload.bucket}/{upload.key}?partNumber={number}&uploadId={upload.upload_id}"
    answer = await client.send("PUT", where, body)
    if answer.status == 200:
        upload.parts[number] = etag
    elif answer.status == 0 or answer.status >= 500:
        upload.unsure = True
    return answer


async def complete(
    client: "Client", upload: Upload, number: int, needs: str = ""
) -> tuple[Answer, Act]:
    """Ask for the object of that part alone; the act is not ended yet."""
    etag = upload.parts[number]
    act = client.begin(
        upload.key, "write", value=etag_of_parts([client.world.bodies[etag]]), needs=needs
    )
    return await send_completion(client, upload, number, needs), act


async def send_completion(client: "Client", upload: Upload, number: int, needs: str = "") -> Answer:
    """The request alone."""
    part = f'<Part><PartNumber>{number}</PartNumber><ETag>"{upload.parts[number]}"</ETag></Part>'
    body = f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>".encode()
    headers = {"if-none-match": "*"} if needs == "*" else {}
    answer = await client.send("POST", upload.path, body, headers)
    if answer.status == 200 and b"<Error>" in answer.body:
        return NOBODY
    return answer


async def upload_alone(client: "Client") -> None:
    """Begin, fill, sometimes abort; complete until it is answered, and perhaps once more."""
    upload = await begin(client, client.key())
    if upload is None or (await put_part(client, upload)).status != 200:
        return  # left to the keeper
    if client.random.random() < 0.3:
        await put_part(client, upload, 2)  # not used
    if client.random.random() < 0.15:
        await client.send("DELETE", upload.path)
        return
    if client.random.random() < 0.4:
        answer, act = await complete(client, upload, 1, "*")
        client.end_upload(act, answer, upload)
        if answer.status != 412:
            return
        await _reopened(client, upload)
    answer, act = await complete(client, upload, 1)
    refusals = 0
    for _ in range(TRIES):
        if answer.status and answer.status < 500 and answer.status != 409:
            break
        refusals = refusals + 1 if answer.status == 409 else 0
        if refusals == REFUSALS_MAX and not client.remakes:
            raise Wrong(f"{act}: asked for again and again, it is answered {answer.code}")
        await asyncio.sleep(client.random.uniform(0.2, 3.0))
        answer = await send_completion(client, upload, 1)
    client.end_upload(act, answer, upload)
    if answer.status == 200 and client.random.random() < 0.4:
        await asyncio.sleep(client.random.uniform(0.0, 2.0))
        again = await send_completion(client, upload, 1)
        if again.status == 404 and not client.remade_since(upload.began):
            raise Wrong(f"{act}: the completion asked for again was answered {again.code}")


async def _reopened(client: "Client", upload: Upload) -> None:
    """A completion was refused: parts may come again."""
    refusals = 0
    for _ in range(TRIES):
        answer = await put_part(client, upload)
        if answer.status == 200:
            return
        refusals += answer.status in (404, 409)
        if refusals == REFUSALS_MAX and not client.remakes:
            raise Wrong(f"{upload.path}: takes no part after a completion was refused")
        await asyncio.sleep(client.random.uniform(0.2, 2.0))


async def join_upload(client: "Client") -> None:
    """Do something to an upload that others work at, too."""
    shared = client.world.uploads
    if len(shared) < SHARED_MAX or client.random.random() < 0.1:
        upload = await begin(client, client.key())
        if upload is not None:
            shared.append(upload)
            del shared[:-SHARED_MAX]
        return
    upload = client.random.choice(shared)
    number = client.random.choice([1, 1, 2])
    if number not in upload.parts or client.random.random() < 0.5:
        await put_part(client, upload, number)
        return
    if client.random.random() < 0.08:
        await client.send("DELETE", upload.path)
        return
    await complete_shared(client, upload, number)


async def complete_shared(client: "Client", upload: Upload, number: int = 1) -> None:
    """Ask for the object of one part, as others may do too."""
    shared = client.world.uploads
    if number not in upload.parts:
        return
    repeated = upload.parts[number] in upload.asked
    upload.asked.add(upload.parts[number])
    answer, act = await complete(client, upload, number)
    if answer.status in (400, 404):
        client.world.history.acts.remove(act)  # replaced, completed or aborted by others
    elif answer.status == 409 or repeated:
        act.unsure = True
    else:
        client.end(act, answer)
    if answer.status in (200, 404) and upload in shared and client.random.random() < 0.7:
        shared.remove(upload)
