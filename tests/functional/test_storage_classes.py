"""Storage classes and schemes of buckets: what operators map, and what writes, reads and copies make of
it."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.functional.conftest import empty_and_delete, error_of
from tests.functional.store_process import StoreProcess, served
from tests.functional.test_post_object import upload
from tests.waiting import eventually

_numbers = itertools.count(1)
MIB = 1 << 20
SIZE_BYTES = 4 * MIB
BODY = bytes(range(256)) * (SIZE_BYTES // 256)
FOLLOWED_SECONDS = 20
"""Within that a change of the map has come to every worker, however loaded the machine is."""
MOVED_SECONDS = 120


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    """A store of six drives, 4+2, that knows two classes, and whose lifecycle days last a second."""
    folder = tmp_path_factory.mktemp("classes") / "data"
    environment = {"OSTRAKA_LIFECYCLE_DAY_SECONDS": "1"}
    with served(folder, ("--workers", "1"), environment) as running:
        running.admin("scheme", "class", "set", "GLACIER_IR", "2+1")
        running.admin("scheme", "class", "set", "COLD", "5+1")
        yield running


@pytest.fixture(scope="module")
def client(classes: StoreProcess) -> Any:
    """Root's client, once the gateway knows the classes."""
    made = classes.client()
    made.create_bucket(Bucket="first")

    def known() -> bool:
        try:
            made.put_object(Bucket="first", Key="k", Body=b"x", StorageClass="COLD")
        except made.exceptions.ClientError:
            return False
        return True

    eventually(known, FOLLOWED_SECONDS)
    return made


@pytest.fixture
def pail(client: Any) -> Iterator[str]:
    """A fresh bucket of that store."""
    name = f"pail-{next(_numbers)}"
    client.create_bucket(Bucket=name)
    yield name
    empty_and_delete(client, name)


class Shards:
    """The large shards that came to a store's drives since this was made."""

    def __init__(self, store: StoreProcess) -> None:
        self._store = store
        self._before = self._found()

    def _found(self) -> dict[str, int]:
        return {
            str(path): path.stat().st_size
            for path in self._store.directory.glob("drive*/files/*/*")
            if path.is_file()
        }

    def new(self) -> dict[int, int]:
        """How many, by their size in whole 64 KiB. Of `SIZE_BYTES` under 2+1 that is 3 of 32."""
        counted: dict[int, int] = {}
        for path, size in self._found().items():
            if path not in self._before and size > 256 << 10:
                counted[size >> 16] = counted.get(size >> 16, 0) + 1
        return counted


UNDER_2_1 = {32: 3}
UNDER_5_1 = {12: 6}
UNDER_4_2 = {16: 6}


def test_a_mapped_class_keeps_the_object_and_is_shown(
    classes: StoreProcess, client: Any, pail: str
) -> None:
    client.put_object(Bucket=pail, Key="a", Body=BODY, StorageClass="COLD")
    client.put_object(Bucket=pail, Key="b", Body=b"small", StorageClass="GLACIER_IR")
    client.put_object(Bucket=pail, Key="c", Body=b"plain", StorageClass="STANDARD")
    got = client.get_object(Bucket=pail, Key="a")
    assert got["Body"].read() == BODY
    assert got["StorageClass"] == "COLD"
    assert client.head_object(Bucket=pail, Key="b")["StorageClass"] == "GLACIER_IR"
    assert "StorageClass" not in client.head_object(Bucket=pail, Key="c")
    told = client.get_object_attributes(Bucket=pail, Key="a", ObjectAttributes=["StorageClass"])
    assert told["StorageClass"] == "COLD"
    expected = {"a": "COLD", "b": "GLACIER_IR", "c": "STANDARD"}
    for listed in (
        client.list_objects_v2(Bucket=pail)["Contents"],
        client.list_objects(Bucket=pail)["Contents"],
        client.list_object_versions(Bucket=pail)["Versions"],
    ):
        assert {item["Key"]: item["StorageClass"] for item in listed} == expected


def test_a_class_is_a_scheme(classes: StoreProcess, client: Any, pail: str) -> None:
    for storage_class, expected in (
        ("GLACIER_IR", UNDER_2_1),
        ("COLD", UNDER_5_1),
        ("STANDARD", UNDER_4_2),
    ):
        shards = Shards(classes)
        client.put_object(Bucket=pail, Key=storage_class, Body=BODY, StorageClass=storage_class)
        assert shards.new() == expected


@pytest.mark.parametrize(
    ("storage_class", "answer"),
    [
        ("COLDER", ("InvalidStorageClass", 400)),
        ("STANDARD_IA", ("InvalidStorageClass", 400)),
        ("GLACIER", ("NotImplemented", 501)),
        ("OUTPOSTS", ("NotImplemented", 501)),
    ],
)
def test_classes_without_a_scheme_are_refused(
    classes: StoreProcess, client: Any, pail: str, storage_class: str, answer: tuple[str, int]
) -> None:
    client.put_object(Bucket=pail, Key="source", Body=b"x")
    new = {"Bucket": pail, "Key": "k", "StorageClass": storage_class}
    assert error_of(client.put_object, **new, Body=b"x") == answer
    assert error_of(client.create_multipart_upload, **new) == answer
    assert error_of(client.copy_object, **new, CopySource=f"{pail}/source") == answer
    posted = upload(
        classes, client, pail, [("key", "k"), ("x-amz-storage-class", storage_class)], b"x"
    )
    assert posted[0] == answer[1]
    assert answer[0].encode() in posted[2]
    assert [item["Key"] for item in client.list_objects_v2(Bucket=pail)["Contents"]] == ["source"]


def test_a_form_may_name_a_class(classes: StoreProcess, client: Any, pail: str) -> None:
    shards = Shards(classes)
    fields = [("key", "k"), ("x-amz-storage-class", "COLD")]
    assert upload(classes, client, pail, fields, BODY)[0] == 204
    assert client.head_object(Bucket=pail, Key="k")["StorageClass"] == "COLD"
    assert shards.new() == UNDER_5_1


def test_an_upload_has_a_class(classes: StoreProcess, client: Any, pail: str) -> None:
    shards = Shards(classes)
    named = {"Bucket": pail, "Key": "k"}
    upload_id = client.create_multipart_upload(**named, StorageClass="GLACIER_IR")["UploadId"]
    (listed,) = client.list_multipart_uploads(Bucket=pail)["Uploads"]
    assert listed["StorageClass"] == "GLACIER_IR"
    named["UploadId"] = upload_id
    bodies = (BODY + BODY, b"the end")
    etags = [
        client.upload_part(**named, PartNumber=number, Body=body)["ETag"]
        for number, body in enumerate(bodies, 1)
    ]
    assert client.list_parts(**named)["StorageClass"] == "GLACIER_IR"
    parts = [{"ETag": etag, "PartNumber": number} for number, etag in enumerate(etags, 1)]
    client.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    got = client.get_object(Bucket=pail, Key="k")
    assert got["StorageClass"] == "GLACIER_IR"
    assert got["Body"].read() == b"".join(bodies)
    assert shards.new() == {64: 3}


def test_a_copy_is_standard_unless_it_names_a_class(
    classes: StoreProcess, client: Any, pail: str
) -> None:
    client.put_object(
        Bucket=pail, Key="a", Body=BODY, StorageClass="COLD", Metadata={"m": "1"}, Tagging="t=1"
    )
    etag = client.head_object(Bucket=pail, Key="a")["ETag"]
    shards = Shards(classes)
    client.copy_object(Bucket=pail, Key="b", CopySource=f"{pail}/a", StorageClass="COLD")
    assert shards.new() == {}  # the same scheme: nothing is stored again
    client.copy_object(Bucket=pail, Key="c", CopySource=f"{pail}/a")
    assert shards.new() == UNDER_4_2
    shards = Shards(classes)
    client.copy_object(Bucket=pail, Key="a", CopySource=f"{pail}/a", StorageClass="GLACIER_IR")
    assert shards.new() == UNDER_2_1
    found = {key: client.get_object(Bucket=pail, Key=key) for key in "abc"}
    assert {key: got.get("StorageClass") for key, got in found.items()} == {
        "a": "GLACIER_IR",
        "b": "COLD",
        "c": None,
    }
    for got in found.values():
        assert (got["Body"].read(), got["ETag"], got["Metadata"]) == (BODY, etag, {"m": "1"})
    tags = client.get_object_tagging(Bucket=pail, Key="a")["TagSet"]
    assert tags == [{"Key": "t", "Value": "1"}]


def test_a_bucket_has_a_scheme_for_what_is_standard(
    classes: StoreProcess, client: Any, pail: str
) -> None:
    assert classes.admin("bucket", "scheme", pail) == {
        "bucket": pail,
        "scheme": "4+2",
        "own": False,
    }
    client.put_object(Bucket=pail, Key="before", Body=BODY)
    told = classes.admin("bucket", "scheme", pail, "2+1")
    assert (told["scheme"], told["own"]) == ("2+1", True)
    shards = Shards(classes)
    client.put_object(Bucket=pail, Key="after", Body=BODY)
    assert shards.new() == UNDER_2_1
    shards = Shards(classes)
    client.put_object(Bucket=pail, Key="cold", Body=BODY, StorageClass="COLD")
    assert shards.new() == UNDER_5_1
    shards = Shards(classes)
    client.copy_object(Bucket=pail, Key="copy", CopySource=f"{pail}/before")
    assert shards.new() == UNDER_2_1
    assert not classes.admin("bucket", "scheme", pail, "default")["own"]
    shards = Shards(classes)
    client.put_object(Bucket=pail, Key="at last", Body=BODY)
    assert shards.new() == UNDER_4_2
    for key in ("before", "after", "cold", "copy", "at last"):
        assert client.get_object(Bucket=pail, Key=key)["Body"].read() == BODY


def test_operators_are_told_what_cannot_be(classes: StoreProcess, pail: str) -> None:
    for arguments, words in (
        (("scheme", "class", "set", "GLACIER", "2+1"), "restored"),
        (("scheme", "class", "set", "STANDARD", "2+1"), "default"),
        (("scheme", "class", "set", "cold", "2+1"), "capital letter"),
        (("scheme", "class", "set", "WIDE", "8+3"), "needs 11 drives"),
        (("scheme", "class", "set", "ODD", "2-1"), "K+M"),
        (("scheme", "class", "unset", "NOBODYS"), "no scheme"),
        (("bucket", "scheme", pail, "8+3"), "needs 11 drives"),
        (("bucket", "scheme", "nobodys-bucket", "2+1"), "no bucket"),
    ):
        assert words in classes.refused(*arguments)


def test_a_class_that_lost_its_scheme_takes_nothing_new(
    classes: StoreProcess, client: Any, pail: str
) -> None:
    classes.admin("scheme", "class", "set", "PASSING", "2+1")
    new = {"Bucket": pail, "Key": "k", "Body": BODY, "StorageClass": "PASSING"}

    def offered() -> bool:
        try:
            client.put_object(**new)
        except client.exceptions.ClientError:
            return False
        return True

    eventually(offered, FOLLOWED_SECONDS)
    assert "PASSING" not in classes.admin("scheme", "class", "unset", "PASSING")["classes"]
    eventually(lambda: not offered(), FOLLOWED_SECONDS)
    assert error_of(client.put_object, **new) == ("InvalidStorageClass", 400)
    got = client.get_object(Bucket=pail, Key="k")
    assert (got["StorageClass"], got["Body"].read()) == ("PASSING", BODY)


def _rule(**actions: Any) -> dict[str, Any]:
    return {"ID": "r", "Filter": {"Prefix": "cold/"}, "Status": "Enabled", **actions}


def _put_rules(client: Any, name: str, *rules: dict[str, Any], **options: str) -> None:
    client.put_bucket_lifecycle_configuration(
        Bucket=name, LifecycleConfiguration={"Rules": list(rules)}, **options
    )


def test_rules_with_transitions_are_kept_as_they_were_put(client: Any, pail: str) -> None:
    rule = _rule(
        Transitions=[
            {"Days": 0, "StorageClass": "GLACIER_IR"},
            {"Days": 9, "StorageClass": "COLD"},
        ],
        NoncurrentVersionTransitions=[
            {"NoncurrentDays": 3, "StorageClass": "COLD", "NewerNoncurrentVersions": 2}
        ],
        Expiration={"Days": 10},
    )
    _put_rules(client, pail, rule)
    kept = client.get_bucket_lifecycle_configuration(Bucket=pail)
    assert kept["Rules"] == [rule]
    assert "TransitionDefaultMinimumObjectSize" not in kept
    minimum = {"TransitionDefaultMinimumObjectSize": "varies_by_storage_class"}
    _put_rules(client, pail, rule, **minimum)
    kept = client.get_bucket_lifecycle_configuration(Bucket=pail)
    assert kept["TransitionDefaultMinimumObjectSize"] == "varies_by_storage_class"


@pytest.mark.parametrize(
    ("move", "answer"),
    [
        ({"Days": 1, "StorageClass": "COLDER"}, ("MalformedXML", 400)),
        ({"Days": 1, "StorageClass": "INTELLIGENT_TIERING"}, ("InvalidArgument", 400)),
        ({"Days": 1, "StorageClass": "GLACIER"}, ("NotImplemented", 501)),
        ({"Days": -1, "StorageClass": "COLD"}, ("InvalidArgument", 400)),
        ({"Days": 10, "StorageClass": "COLD"}, ("InvalidArgument", 400)),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(
    client: Any, pail: str, move: dict[str, Any], answer: tuple[str, int]
) -> None:
    rules = {"Rules": [_rule(Transitions=[move], Expiration={"Days": 10})]}
    put = client.put_bucket_lifecycle_configuration
    assert error_of(put, Bucket=pail, LifecycleConfiguration=rules) == answer


def _multipart(client: Any, name: str, key: str) -> None:
    named = {"Bucket": name, "Key": key}
    named["UploadId"] = client.create_multipart_upload(**named, ChecksumAlgorithm="CRC32C")[
        "UploadId"
    ]
    parts = [
        {
            "ETag": told["ETag"],
            "ChecksumCRC32C": told["ChecksumCRC32C"],
            "PartNumber": number,
        }
        for number, body in ((1, BODY + BODY), (2, b"the end"))
        for told in [
            client.upload_part(**named, PartNumber=number, Body=body, ChecksumAlgorithm="CRC32C")
        ]
    ]
    client.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})


def test_objects_and_versions_move_and_nothing_else_of_them_changes(
    classes: StoreProcess, client: Any
) -> None:
    name = "moving"
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    put = {"Bucket": name, "Metadata": {"a": "1"}, "Tagging": "t=1", "ChecksumAlgorithm": "SHA256"}
    client.put_object(**put, Key="cold/sealed", Body=BODY, ServerSideEncryption="AES256")
    client.put_object(
        **put, Key="cold/locked", Body=BODY, ObjectLockLegalHoldStatus="ON", ContentType="a/b"
    )
    client.put_object(**put, Key="cold/small", Body=b"small")
    client.put_object(**put, Key="kept", Body=BODY)
    for body in (b"1" * SIZE_BYTES, b"2" * SIZE_BYTES):
        client.put_object(**put, Key="cold/versions", Body=body)
    _multipart(client, name, "cold/parts")

    def versions() -> dict[tuple[str, str], str]:
        listed = client.list_object_versions(Bucket=name)["Versions"]
        return {(item["Key"], item["VersionId"]): item["StorageClass"] for item in listed}

    def seen() -> dict[tuple[str, str], tuple[dict[str, Any], bytes, Any]]:
        found = {}
        for key, version in versions():
            one = {"Bucket": name, "Key": key, "VersionId": version}
            got = client.get_object(**one, ChecksumMode="ENABLED")
            body = got.pop("Body").read()
            del got["ResponseMetadata"]
            got.pop("StorageClass", None)
            found[key, version] = (got, body, client.get_object_tagging(**one)["TagSet"])
        return found

    before = seen()
    assert set(versions().values()) == {"STANDARD"}
    shards = Shards(classes)
    counted = classes.metrics()
    _put_rules(
        client,
        name,
        _rule(
            Transitions=[{"Days": 1, "StorageClass": "COLD"}],
            NoncurrentVersionTransitions=[{"NoncurrentDays": 1, "StorageClass": "GLACIER_IR"}],
        ),
    )

    def moved() -> bool:
        return sorted(versions().values()) == [*["COLD"] * 5, "GLACIER_IR", "STANDARD"]

    eventually(moved, MOVED_SECONDS)
    assert versions()["kept", next(v for k, v in versions() if k == "kept")] == "STANDARD"
    new = shards.new()
    assert new[32] == UNDER_2_1[32]  # the older version
    assert new[12] == 3 * UNDER_5_1[12]  # three objects of 4 MiB; sealed ones are little longer
    assert new[25] == 6  # the part of 8 MiB
    assert seen() == before

    def told() -> bool:
        now = classes.metrics()
        current, noncurrent, size_bytes = (
            now[metric] - counted[metric]
            for metric in (
                'ostraka_lifecycle_records_total{outcome="transitioned"}',
                'ostraka_lifecycle_records_total{outcome="transitioned_noncurrent"}',
                "ostraka_lifecycle_transitioned_bytes_total",
            )
        )
        return (current, noncurrent) == (5, 1) and size_bytes > 6 * SIZE_BYTES

    eventually(told, FOLLOWED_SECONDS)
