"""A bucket that is deleted and made again through any gateway, and one that keeps versions."""

import asyncio
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.sim.client import NOBODY, etag_of
from tests.sim.model import FOREVER, Wrong

if TYPE_CHECKING:
    from tests.sim.workload import Client
    from tests.sim.world import World

VERSIONED = "urns"
MAKE_SECONDS = 120.0


async def remake_bucket(client: "Client") -> None:
    """Empty the bucket and delete it: at that moment no key was there. Then make it again."""
    world = client.world
    if world.remaking:
        return
    world.remaking = True
    anywhere = client.goes_to
    names = {one.process.name for one in world.gateways if anywhere(one.process.name)}
    here = client.random.choice(sorted(names))
    client.goes_to = {here}.__contains__
    try:
        for _ in range(3):
            await client.delete_keys(world.keys)
            looks = [client.begin(key, "read") for key in world.keys]
            answer = await client.send("DELETE", f"/{client.bucket}")
            if answer.status == 204:
                for look in looks:
                    look.value, look.returned, look.said = None, world.loop.time(), "bucket deleted"
                break
            for look in looks:
                world.history.acts.remove(look)
            if answer.status == 404:
                break
        if client.random.random() < 0.5:  # let others learn that it is not there
            await asyncio.sleep(client.random.uniform(0.0, 0.5))
        await make_bucket(client)
        await client.put()
        if names - {here}:
            client.goes_to = (names - {here}).__contains__
            if client.random.random() < 0.5:
                await client.list()
            else:
                await client.get()
    finally:
        client.goes_to = anywhere
        world.remade_at.append(world.loop.time())
        world.remaking = False


async def make_bucket(client: "Client") -> None:
    """Until it is there. The gateway may be dead or stand still for a while."""
    end = client.world.loop.time() + MAKE_SECONDS
    answer = NOBODY
    while client.world.loop.time() < end:
        answer = await client.send("PUT", f"/{client.bucket}")
        if answer.status in (200, 409):
            return
        await asyncio.sleep(client.random.uniform(0.1, 2.0))
    raise Wrong(f"the bucket could not be made again: {answer.status} {answer.code}")


async def make_versioned(client: "Client") -> None:
    """The bucket that keeps versions."""
    await client.send("PUT", f"/{VERSIONED}")
    body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    answer = await client.send("PUT", f"/{VERSIONED}?versioning", body, client.digest_of(body))
    if answer.status != 200:
        raise Wrong(f"versioning could not be enabled: {answer.status} {answer.body!r}")


@dataclass(eq=False)
class Version:
    """One version that was asked for; `version_id` once it was answered."""

    key: str
    etag: str
    called: float
    returned: float = FOREVER
    version_id: str = ""


async def put_version(client: "Client") -> None:
    """A new version of a key."""
    body = client.body()
    key = client.key()
    version = Version(key, etag_of(body), client.world.loop.time())
    client.world.bodies[version.etag] = body
    answer = await client.send("PUT", f"/{VERSIONED}/{key}", body)
    if answer.status == 200:
        version.returned = client.world.loop.time()
        version.version_id = answer.headers["x-amz-version-id"]
        client.world.versions.append(version)


async def get_version(client: "Client") -> None:
    """One that was acknowledged, or the order of all of a key's."""
    if not client.world.versions:
        return
    version = client.random.choice(client.world.versions)
    if client.random.random() < 0.4:
        await check_versions(client, version.key)
        return
    path = f"/{VERSIONED}/{version.key}?versionId={version.version_id}"
    answer = await client.send("GET", path)
    if answer.status == 404 or (
        answer.status == 200 and answer.body != client.world.bodies[version.etag]
    ):
        raise Wrong(f"version {version.version_id} of {version.key}: {answer.status}")


async def check_versions(client: "Client", key: str) -> None:
    """Every version acknowledged before is listed, and those that came one after the other so."""
    known = [version for version in client.world.versions if version.key == key]
    answer = await client.send("GET", f"/{VERSIONED}?versions&prefix={key}&max-keys=1000")
    if answer.status != 200:
        return
    pattern = rb"<Version>.*?<Key>([^<]*)</Key>.*?<VersionId>([^<]*)</VersionId>"
    listed = re.findall(pattern, answer.body, re.DOTALL)
    places = {
        version_id.decode(): place
        for place, (name, version_id) in enumerate(listed)
        if name == key.encode()
    }
    for version in known:
        if version.version_id not in places:
            raise Wrong(f"version {version.version_id} of {key} is not listed")
    known.sort(key=lambda version: version.called)
    for older, newer in itertools.pairwise(known):
        if older.returned < newer.called and places[older.version_id] < places[newer.version_id]:
            raise Wrong(
                f"{key}: version {newer.version_id} is listed as older than what it followed"
            )


async def check_all_versions(world: "World", client: "Client") -> None:
    """Of every key."""
    for key in world.keys:
        await check_versions(client, key)
