"""Admission: who needs none, what a stale guess leads to, and that no body is read too early."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from gateway.app import Gateway
from gateway.authorization import ANONYMOUS, admission_of, admit, is_plain, may
from gateway.context import Context
from gateway.http.message import HttpRequest
from gateway.metadata.errors import NotBucketOwner
from gateway.metadata.policies import pack_policy
from gateway.metadata.records import BucketRecord, ObjectRecord
from gateway.metrics import RequestCounts
from gateway.operations.registry import OPERATIONS
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import NOT_PLAIN, Principal, S3Request, S3Response
from tests.unit.metadata_doubles import OWNER, Rig, stored

OPEN = b"""{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*",
"Action":["s3:GetObject","s3:PutObject","s3:PutBucketTagging"],
"Resource":["arn:aws:s3:::bucket","arn:aws:s3:::bucket/pub/*"]}}"""
OTHER = Principal("222222222222", "b" * 64, "other", "", "AKIAOTHER")


async def answer_of(gateway: Gateway, http: HttpRequest) -> S3Response:
    answer = gateway(http)
    return answer if isinstance(answer, S3Response) else await answer


class Unreadable:
    """A body that must not be touched."""

    def __init__(self, size_bytes: int | None = 10) -> None:
        self.size_bytes = size_bytes
        self.touched = False

    async def read_into(self, buffer: memoryview) -> int:
        self.touched = True
        return 0

    async def read_all(self, limit_bytes: int) -> bytes:
        self.touched = True
        return b""

    def take_now(self) -> bytes | None:
        self.touched = True
        return b""


def context_of(rig: Rig) -> Context:
    nothing: Any = None
    return Context(rig.metadata, nothing, rig.clock, rig.randomness, "us-east-1")


def asked(method: str = "GET", key: str | None = "k", **headers: str) -> S3Request:
    nothing: Any = None
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return S3Request(method, "bucket", key, {}, named, b"/", b"", nothing, "")


def run(scenario: Callable[[Rig], Awaitable[None]]) -> None:
    async def main() -> None:
        rig = Rig()
        await rig.ready()
        await scenario(rig)

    asyncio.run(main())


async def put(rig: Rig, key: str, **changes: Any) -> None:
    entry, previous = await rig.metadata.lookup("bucket", key, OWNER)
    record: ObjectRecord = msgspec.structs.replace(rig.record(), **changes)
    await rig.metadata.commits.commit(
        entry, entry.object_key(key), record, stored=stored(record), previous=previous
    )


async def open_up(rig: Rig) -> None:
    def change(record: BucketRecord) -> BucketRecord:
        return msgspec.structs.replace(record, policy=pack_policy(OPEN))

    await rig.metadata.change_bucket("bucket", OWNER, change)


def test_the_owners_root_in_a_plain_bucket_needs_no_admission() -> None:
    async def scenario(rig: Rig) -> None:
        await put(rig, "k")
        context = context_of(rig)
        assert is_plain(context, asked(), OWNER)
        assert not is_plain(context, asked(), OTHER)
        assert not is_plain(context, asked(x_amz_expected_bucket_owner="1"), OWNER)
        user = msgspec.structs.replace(OWNER, user="u", plain_account="")
        assert user.plain_account == NOT_PLAIN
        assert not is_plain(context, asked(), user)
        await open_up(rig)
        assert not is_plain(context, asked(), OWNER)

    run(scenario)


def test_a_policy_set_through_another_gateway_is_not_passed_over() -> None:
    async def scenario(rig: Rig) -> None:
        await put(rig, "k")
        stale = rig.gateway()
        await stale.lookup("bucket", "k", OWNER)
        await open_up(rig)
        with pytest.raises(NotBucketOwner):
            await stale.lookup("bucket", "k", OWNER)
        with pytest.raises(NotBucketOwner):
            await stale.bucket("bucket", OWNER)

    run(scenario)


def test_anothers_object_in_ones_own_bucket_needs_an_admission() -> None:
    async def scenario(rig: Rig) -> None:
        await put(rig, "theirs", owner=OTHER.account_id)
        with pytest.raises(NotBucketOwner):
            await rig.metadata.lookup("bucket", "theirs", OWNER)
        context = context_of(rig)
        reading = admit(context, asked(key="theirs"), OWNER, "s3:GetObject")
        with pytest.raises(S3Error) as caught:
            await rig.metadata.lookup("bucket", "theirs", reading)
        assert caught.value.code is ErrorCode.ACCESS_DENIED
        deleting = admit(context, asked(key="theirs"), OWNER, "s3:DeleteObject")
        assert (await rig.metadata.lookup("bucket", "theirs", deleting))[1] is not None

    run(scenario)


def test_what_nobody_uploaded_before_it_became_the_bucket_owners_is_judged_as_theirs() -> None:
    async def scenario(rig: Rig) -> None:
        await put(rig, "pub/k", owner=ANONYMOUS.account_id)
        await put(rig, "k", owner=ANONYMOUS.account_id)
        await open_up(rig)
        context = context_of(rig)
        for principal in (ANONYMOUS, OTHER, OWNER):
            reading = admit(context, asked(key="pub/k"), principal, "s3:GetObject")
            assert (await rig.metadata.lookup("bucket", "pub/k", reading))[1] is not None
        reading = admit(context, asked(key="k"), OWNER, "s3:GetObject")
        assert (await rig.metadata.lookup("bucket", "k", reading))[1] is not None
        for principal in (ANONYMOUS, OTHER):
            reading = admit(context, asked(key="k"), principal, "s3:GetObject")
            with pytest.raises(S3Error):
                await rig.metadata.lookup("bucket", "k", reading)

    run(scenario)


def test_what_is_missing_is_told_to_those_who_may_list() -> None:
    async def scenario(rig: Rig) -> None:
        await open_up(rig)
        context = context_of(rig)
        owner = admit(context, asked(key="pub/k"), OWNER, "s3:GetObject")
        assert (await rig.metadata.lookup("bucket", "pub/k", owner))[1] is None
        nobody = admit(context, asked(key="pub/k"), ANONYMOUS, "s3:GetObject")
        with pytest.raises(S3Error):
            await rig.metadata.lookup("bucket", "pub/k", nobody)

    run(scenario)


def test_a_copy_and_each_key_are_asked_apart() -> None:
    async def scenario(rig: Rig) -> None:
        await put(rig, "pub/k")
        await put(rig, "k")
        await open_up(rig)
        context = context_of(rig)
        principal = admit(context, asked("PUT", "pub/new"), OTHER, "s3:PutObject")
        admission = admission_of(principal)
        assert admission is not None
        await rig.metadata.lookup("bucket", "pub/new", principal)
        await rig.metadata.lookup("bucket", "pub/k", admission.for_source("bucket", "pub/k"))
        with pytest.raises(S3Error):
            await rig.metadata.lookup("bucket", "k", admission.for_source("bucket", "k"))
        deleting = admission.for_key("pub/k", "s3:DeleteObject")
        with pytest.raises(S3Error):
            await rig.metadata.lookup("bucket", "pub/k", deleting)
        entry = await rig.metadata.buckets.guess("bucket")
        assert may(OWNER, entry, "s3:BypassGovernanceRetention", "k")
        assert not may(principal, entry, "s3:BypassGovernanceRetention", "pub/k")

    run(scenario)


@pytest.mark.parametrize(
    ("method", "target", "size_bytes"),
    [
        ("PUT", b"/bucket?policy", 10),
        ("PUT", b"/bucket?acl", 10),
        ("PUT", b"/bucket/k?acl", 10),
        ("PUT", b"/bucket/k?tagging", 10),
        ("PUT", b"/bucket/k", 10),
        ("PUT", b"/bucket/k", None),
        ("PUT", b"/new-bucket", 10),
        ("POST", b"/bucket/k?uploadId=" + b"0" * 32, 10),
    ],
)
def test_nobodys_body_is_not_read_before_it_is_let_in(
    method: str, target: bytes, size_bytes: int | None
) -> None:
    async def scenario(rig: Rig) -> None:
        gateway = Gateway(context_of(rig), OPERATIONS, domains=(), counts=RequestCounts())
        body = Unreadable(size_bytes)
        http = HttpRequest(method, target, {"host": "h"}, body, False, "127.0.0.1", 0.0, "id")
        answer = await answer_of(gateway, http)
        assert (answer.status, http.error_code) == (403, "AccessDenied")
        assert not body.touched

    run(scenario)


def test_nobody_is_let_in_where_a_policy_says_so() -> None:
    async def scenario(rig: Rig) -> None:
        await open_up(rig)
        gateway = Gateway(context_of(rig), OPERATIONS, domains=(), counts=RequestCounts())
        body = Unreadable()
        http = HttpRequest("PUT", b"/bucket?tagging", {"host": "h"}, body, False, "", 0.0, "id")
        await answer_of(gateway, http)
        assert body.touched

    run(scenario)
