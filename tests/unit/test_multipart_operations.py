"""The multipart operations: checksums, numbers, listings, copies."""

import re
from base64 import b64encode
from collections.abc import Awaitable
from pathlib import Path

import pytest

from gateway.metadata import keys, uploads
from gateway.metadata.errors import NoSuchKey, PreconditionFailed
from gateway.s3.checksums import ChecksumAlgorithm, checksum_of
from gateway.s3.errors import ErrorCode
from gateway.s3.message import S3Response
from placement.metastore.port import DeleteRange, Put, Range, Txn, prefix_end
from storage_node.port import Outcome
from tests.unit.metadata_doubles import OWNER
from tests.unit.multipart_service import (
    BODIES,
    ROWS,
    Run,
    Service,
    document_of,
    refused,
    runner_in,
    text_of,
    texts_of,
)
from tests.unit.s3_requests import request_of


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a scenario; parts of 4 KiB suffice."""
    return runner_in(tmp_path, monkeypatch)


@pytest.mark.parametrize("name", [algorithm.text for algorithm in ChecksumAlgorithm])
def test_checksums_are_demanded_stored_and_combined(run: Run, name: str) -> None:
    algorithm = ChecksumAlgorithm(name)

    async def scenario(service: Service) -> None:
        response = await service.call(
            "CreateMultipartUpload", "POST", "key?uploads", x_amz_checksum_algorithm=name
        )
        kind = dict(response.headers)["x-amz-checksum-type"]
        assert kind == ("FULL_OBJECT" if name == "CRC64NVME" else "COMPOSITE")
        upload_id = text_of(response, "UploadId")
        other = ChecksumAlgorithm("SHA1" if name == "SHA256" else "SHA256")
        error = await refused(
            service.call(
                "UploadPart",
                "PUT",
                f"key?partNumber=1&uploadId={upload_id}",
                b"x",
                **{other.header: b64encode(checksum_of(other, b"x")).decode()},
            )
        )
        assert error.code is ErrorCode.INVALID_REQUEST
        assert f"expected checksum Type: {name.lower()}" in error.message
        etags, sums = [], []
        for number, body in enumerate(BODIES, 1):
            value = b64encode(checksum_of(algorithm, body)).decode()
            sums.append(value)
            etags.append(
                await service.part(upload_id, number, body, "key", **{algorithm.header: value})
            )
        if kind == "FULL_OBJECT":
            whole = b64encode(checksum_of(algorithm, b"".join(BODIES))).decode()
        else:
            joined = b"".join(checksum_of(algorithm, body) for body in BODIES)
            whole = b64encode(checksum_of(algorithm, joined)).decode() + "-3"
        document = b"<CompleteMultipartUpload>" + b"".join(
            f"<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag>"
            f"<Checksum{name}>{value}</Checksum{name}></Part>".encode()
            for n, (etag, value) in enumerate(zip(etags, sums, strict=True), 1)
        )
        document += b"</CompleteMultipartUpload>"
        path = f"key?uploadId={upload_id}"
        wrong = document.replace(sums[1].encode(), sums[0].encode())
        bad = b64encode(bytes(algorithm.size_bytes)).decode()
        bare = re.sub(rb"<Checksum.*?</Checksum\w+>", b"", document)
        for sent, headers, code in (
            (document, {algorithm.header: bad}, ErrorCode.BAD_DIGEST),
            (document, {algorithm.header: "bad"}, ErrorCode.BAD_DIGEST),
            (bare, {algorithm.header: "bad"}, ErrorCode.BAD_DIGEST),
            (document, {other.header: bad}, ErrorCode.INVALID_REQUEST),
            (document, {"x-amz-mp-object-size": "1"}, ErrorCode.INVALID_REQUEST),
            (document, {"x-amz-mp-object-size": "much"}, ErrorCode.INVALID_REQUEST),
            (wrong, {}, ErrorCode.INVALID_PART),
        ):
            call = service.call("CompleteMultipartUpload", "POST", path, sent, **headers)
            assert (await refused(call)).code is code
        if kind == "COMPOSITE":
            call = service.call("CompleteMultipartUpload", "POST", path, bare)
            assert (await refused(call)).code is ErrorCode.INVALID_REQUEST
        size = str(sum(map(len, BODIES)))
        response = await service.call(
            "CompleteMultipartUpload",
            "POST",
            path,
            document,
            **{algorithm.header: whole, "x-amz-mp-object-size": size, "x-amz-checksum-type": kind},
        )
        assert text_of(response, f"Checksum{name}") == whole
        assert text_of(response, "ChecksumType") == kind

    run(scenario)


def test_a_checksum_that_the_upload_did_not_name_is_verified_and_told_again(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        value = b64encode(checksum_of(ChecksumAlgorithm.CRC32, b"body")).decode()
        path = f"key?partNumber=1&uploadId={upload_id}"
        response = await service.call(
            "UploadPart", "PUT", path, b"body", x_amz_checksum_crc32=value
        )
        headers = dict(response.headers)
        assert headers["x-amz-checksum-crc32"] == value
        error = await refused(
            service.call("UploadPart", "PUT", path, b"other", x_amz_checksum_crc32=value)
        )
        assert error.code is ErrorCode.BAD_DIGEST
        listed = await service.call("ListParts", "GET", f"key?uploadId={upload_id}")
        assert texts_of(listed, "Part/ChecksumCRC32") == [value]
        body = document_of([(1, headers["ETag"])], f"<ChecksumCRC32>{value}</ChecksumCRC32>")
        response = await service.call(
            "CompleteMultipartUpload", "POST", f"key?uploadId={upload_id}", body
        )
        whole = checksum_of(ChecksumAlgorithm.CRC64NVME, b"body")
        assert text_of(response, "ChecksumCRC64NVME") == b64encode(whole).decode()

    run(scenario)


@pytest.mark.parametrize("number", ["0", "-1", "10001", "x", "", "1e3", "\u0661"])
def test_part_numbers_run_from_1_to_10000(run: Run, number: str) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        quoted = number.encode().hex("%")
        quoted = f"%{quoted}" if quoted else ""
        path = f"key?partNumber={quoted}&uploadId={upload_id}"
        error = await refused(service.call("UploadPart", "PUT", path, b"x"))
        assert error.code is ErrorCode.INVALID_ARGUMENT
        assert error.details["ArgumentName"] == "partNumber"

    run(scenario)


@pytest.mark.parametrize("upload_id", ["abc1234def", "0" * 32, "F" * 32, "", "zz" * 16])
def test_uploads_that_never_were_are_not_found(run: Run, upload_id: str) -> None:
    async def scenario(service: Service) -> None:
        for call in (
            service.part(upload_id, 1, b"x"),
            service.complete(upload_id, [(1, "00" * 16)]),
            service.abort(upload_id),
            service.call("ListParts", "GET", f"key?uploadId={upload_id}"),
        ):
            assert (await refused(call)).code is ErrorCode.NO_SUCH_UPLOAD
        assert service.blobs() == set()

    run(scenario)


def test_an_upload_is_found_under_its_own_key_only(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create("key")
        error = await refused(service.part(upload_id, 1, b"x", "other"))
        assert error.code is ErrorCode.NO_SUCH_UPLOAD

    run(scenario)


def test_parts_are_listed_in_pages(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        for number in (1, 2, 7, 10_000):
            await service.part(upload_id, number, b"p" * number)
        path = f"key?uploadId={upload_id}"
        page = await service.call("ListParts", "GET", f"{path}&max-parts=2")
        assert texts_of(page, "Part/PartNumber") == ["1", "2"]
        assert text_of(page, "IsTruncated") == "true"
        assert text_of(page, "NextPartNumberMarker") == "2"
        page = await service.call("ListParts", "GET", f"{path}&max-parts=2&part-number-marker=2")
        assert texts_of(page, "Part/PartNumber") == ["7", "10000"]
        assert texts_of(page, "Part/Size") == ["7", "10000"]
        assert text_of(page, "IsTruncated") == "false"
        page = await service.call("ListParts", "GET", f"{path}&part-number-marker=2147483647")
        assert texts_of(page, "Part/PartNumber") == []
        page = await service.call("ListParts", "GET", f"{path}&max-parts=0")
        assert texts_of(page, "Part/PartNumber") == []
        assert text_of(page, "IsTruncated") == "false"
        error = await refused(service.call("ListParts", "GET", f"{path}&max-parts=-1"))
        assert error.code is ErrorCode.INVALID_ARGUMENT

    run(scenario)


def test_uploads_are_listed_by_key_and_initiation_until_they_are_done(run: Run) -> None:
    async def scenario(service: Service) -> None:
        ids: dict[str, list[str]] = {}
        for key in ("b", "a/1", "a/2", "b", "c%20d"):
            ids.setdefault(key, []).append(await service.create(key))
        done = await service.create("aa")
        await service.complete(done, [(1, await service.part(done, 1, b"x", "aa"))], "aa")

        async def listed(query: str = "") -> S3Response:
            row = ROWS["ListMultipartUploads"]
            request = request_of("GET", f"http://localhost:9000/bucket?uploads&{query}", {})
            request.principal = OWNER
            return row.encode(await row.handle(service.context, row.decode(request)))

        answer = await listed()
        assert texts_of(answer, "Upload/Key") == ["a/1", "a/2", "b", "b", "c d"]
        assert texts_of(answer, "Upload/UploadId")[2:4] == ids["b"]
        assert texts_of(answer, "Upload/Owner/ID") == [OWNER.canonical_id] * 5
        answer = await listed("delimiter=/&encoding-type=url")
        assert texts_of(answer, "Upload/Key") == ["b", "b", "c%20d"]
        assert texts_of(answer, "CommonPrefixes/Prefix") == ["a/"]
        # The last upload is named also where nothing comes after it; a prefix only when asked for.
        assert text_of(answer, "NextKeyMarker") == "c%20d"
        assert text_of(answer, "NextUploadIdMarker") == ids["c%20d"][0]
        assert texts_of(answer, "Prefix") == []
        answer = await listed("prefix=zz")
        assert (text_of(answer, "NextKeyMarker"), text_of(answer, "Prefix")) == ("", "zz")
        answer = await listed("max-uploads=1&delimiter=/")
        assert text_of(answer, "NextKeyMarker") == "a/"
        answer = await listed("max-uploads=1&delimiter=/&key-marker=a/")
        assert texts_of(answer, "Upload/UploadId") == ids["b"][:1]
        assert text_of(answer, "IsTruncated") == "true"
        marker = text_of(answer, "NextUploadIdMarker")
        answer = await listed(f"key-marker=b&upload-id-marker={marker}")
        assert texts_of(answer, "Upload/UploadId") == [ids["b"][1], *ids["c%20d"]]
        for query in ("max-uploads=x", "encoding-type=xml", "key-marker=b&upload-id-marker=x"):
            assert (await refused(listed(query))).code is ErrorCode.INVALID_ARGUMENT

    run(scenario)


def test_listing_reads_nothing_of_uploads_that_are_done(run: Run) -> None:
    async def scenario(service: Service) -> None:
        for number in range(20):
            key = f"done{number}"
            upload_id = await service.create(key)
            parts = [(1, await service.part(upload_id, 1, b"x", key))]
            first = await service.complete(upload_id, parts, key)
            again = await service.complete(upload_id, parts, key)
            assert (first.status, first.body) == (again.status, again.body)
        await service.create("open")
        metadata = service.context.metadata
        source = uploads.BucketUploads(metadata, await metadata.bucket("bucket", OWNER))
        page = await source.page(b"", None, 5)
        assert [item.key for item in page.items] == [b"open"]
        assert not page.more
        assert len(await service.under(keys.FINISHED)) == 20
        assert await uploads.tidy(service.rig.memory, lambda entry: uploads.DONE_RETENTION_MS) == 20
        assert await service.under(keys.FINISHED) == []

    run(scenario)


def test_uploads_that_an_earlier_version_finished_answer_alike_and_are_not_listed(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        parts = [(1, await service.part(upload_id, 1, b"x"))]
        first = await service.complete(upload_id, parts)
        key = await service.upload_key(upload_id)
        (value,) = await service.under(keys.FINISHED)
        moved = (DeleteRange(keys.finished(key)), Put(key, value))
        await service.rig.memory.txn(Txn((), moved))
        assert (await service.complete(upload_id, parts)).body == first.body
        metadata = service.context.metadata
        source = uploads.BucketUploads(metadata, await metadata.bucket("bucket", OWNER))
        assert [item.value for item in (await source.page(b"", None, 5)).items] == [None]
        assert await uploads.tidy(service.rig.memory, lambda entry: uploads.DONE_RETENTION_MS) == 1
        assert await service.upload(upload_id) is None

    run(scenario)


def test_parts_are_copied_from_ranges_of_plain_and_multipart_objects(run: Run) -> None:
    async def scenario(service: Service) -> None:
        source = await service.create("multi")
        parts = [(n, await service.part(source, n, b, "multi")) for n, b in enumerate(BODIES, 1)]
        await service.complete(source, parts, "multi")
        await service.call("PutObject", "PUT", "plain", bytes(range(256)) * 1000)
        await service.call("PutObject", "PUT", "empty", b"")
        upload_id = await service.create()

        async def copied(number: int, key: str, **headers: str) -> tuple[int, str]:
            path = f"key?partNumber={number}&uploadId={upload_id}"
            response = await service.call(
                "UploadPartCopy", "PUT", path, x_amz_copy_source=f"/bucket/{key}", **headers
            )
            return number, text_of(response, "ETag")

        wanted = b"".join(BODIES)[4990:9100] + bytes(range(256)) * 1000 + b""
        listed = [
            await copied(1, "multi", x_amz_copy_source_range="bytes=4990-9099"),
            await copied(2, "plain"),
            await copied(3, "empty"),
        ]
        await service.complete(upload_id, listed)
        assert await service.body() == wanted
        record = await service.record()
        assert record is not None
        assert record.checksum is not None
        assert record.checksum.value == checksum_of(ChecksumAlgorithm.CRC64NVME, wanted)

    run(scenario)


def test_copies_of_parts_that_cannot_be_are_refused(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await service.call("PutObject", "PUT", "source", b"12345")
        upload_id = await service.create()
        path = f"key?partNumber=1&uploadId={upload_id}"

        def copied(source: str = "/bucket/source", **headers: str) -> Awaitable[S3Response]:
            return service.call("UploadPartCopy", "PUT", path, x_amz_copy_source=source, **headers)

        for text in ("0-2", "bytes=0", "bytes=hello-world", "bytes=0-bar", "bytes=0-2,3-5"):
            error = await refused(copied(x_amz_copy_source_range=text))
            assert error.code is ErrorCode.INVALID_ARGUMENT
        for text in ("bytes=0-21", "bytes=5-5"):
            error = await refused(copied(x_amz_copy_source_range=text))
            assert error.code is ErrorCode.INVALID_RANGE
        with pytest.raises(NoSuchKey):
            await copied("/bucket/absent")
        with pytest.raises(PreconditionFailed):
            await copied(x_amz_copy_source_if_match="other")
        assert await service.under(keys.PARTS) == []

    run(scenario)


def test_a_part_in_fewer_drives_marks_the_object_for_encoding_anew(run: Run) -> None:
    async def scenario(service: Service) -> None:
        for drive in list(service.node.drives.values())[:2]:
            drive.fails = Outcome.DRIVE_FAILED
        await service.topology.refresh()
        upload_id = await service.create()
        # The first write finds out about the drives; later ones plan without them.
        await service.part(upload_id, 1, b"n" * 100_000)
        etag = await service.part(upload_id, 1, b"n" * 100_000)
        await service.complete(upload_id, [(1, etag)])
        assert await service.body() == b"n" * 100_000
        found = await service.rig.memory.range(Range(keys.NARROW, prefix_end(keys.NARROW)))
        entry = await service.context.metadata.bucket("bucket", OWNER)
        assert [kv.key for kv in found.kvs] == [keys.narrow(entry.object_key("key"))]

    run(scenario)
