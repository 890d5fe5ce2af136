"""Bucket, ACL and listing operations from request to XML, over metadata in memory."""

import asyncio
from typing import Any

import pytest
from lxml import etree

from gateway.context import Context
from gateway.metadata.store import Metadata
from gateway.operation import AnyOperation
from gateway.operations import acl, buckets, listing, versions
from gateway.operations.error_map import to_s3_error
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import S3Request, S3Response
from tests.unit.metadata_doubles import OWNER, Rig, stored

ROWS: dict[str, AnyOperation] = {
    row.name: row
    for row in (
        *buckets.OPERATIONS,
        *acl.OPERATIONS,
        *listing.OPERATIONS,
        *versions.OPERATIONS,
    )
}


class Store:
    """A gateway without HTTP."""

    def __init__(self, *, region: str = "us-east-1") -> None:
        self.rig = Rig()
        nothing: Any = None
        self.context = Context(
            metadata=self.rig.metadata,
            objects=nothing,
            clock=self.rig.clock,
            randomness=self.rig.randomness,
            region=region,
        )

    def ask(
        self,
        name: str,
        bucket: str | None = "bucket",
        key: str | None = None,
        *,
        document: bytes = b"",
        headers: dict[str, str] | None = None,
        **query: str,
    ) -> S3Response:
        nothing: Any = None
        row = ROWS[name]
        request = S3Request(
            method=row.match.method,
            bucket=bucket,
            key=key,
            query={argument.replace("_", "-"): value for argument, value in query.items()},
            headers=headers or {},
            raw_path=b"/",
            raw_query=b"",
            body=nothing,
            request_id="",
            principal=OWNER,
            document=document,
        )

        async def handle() -> Any:
            return await row.handle(self.context, row.decode(request))

        return row.encode(asyncio.run(handle()))

    def xml(self, name: str, bucket: str | None = "bucket", **arguments: Any) -> Any:
        response = self.ask(name, bucket, **arguments)
        assert response.status == 200
        assert isinstance(response.body, bytes)
        return parsed(response.body)

    def put(self, *names: str) -> None:
        async def main(metadata: Metadata) -> None:
            for name in names:
                entry, previous = await metadata.lookup("bucket", name, OWNER)
                record = self.rig.record()
                await metadata.commits.commit(
                    entry,
                    entry.object_key(name),
                    record,
                    stored=stored(record),
                    previous=previous,
                )

        asyncio.run(main(self.rig.metadata))


def parsed(body: bytes) -> Any:
    """Nested dictionaries; what repeats in S3's lists is a list."""

    def value(node: Any) -> Any:
        if not len(node):
            return node.text or ""
        children: dict[str, Any] = {}
        for child in node:
            name = etree.QName(child).localname
            if name in ("Contents", "CommonPrefixes", "Version", "Bucket", "Grant"):
                children.setdefault(name, []).append(value(child))
            else:
                assert name not in children, f"{name} twice"
                children[name] = value(child)
        return children

    return value(etree.fromstring(body))


@pytest.fixture
def store() -> Store:
    made = Store()
    asyncio.run(made.rig.ready())
    return made


def code_of(store: Store, name: str, *path: str | None, **arguments: Any) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 — translated below
        store.ask(name, *path, **arguments)
    answer = to_s3_error(caught.value)
    assert answer is not None
    return answer.code.code


def names(listed: Any) -> tuple[list[str], list[str]]:
    if not isinstance(listed, dict):
        return [], []
    return (
        [each["Key"] for each in listed.get("Contents", [])],
        [each["Prefix"] for each in listed.get("CommonPrefixes", [])],
    )


def test_buckets_are_listed_with_their_owner(store: Store) -> None:
    listed = store.xml("ListBuckets", None)
    assert listed["Owner"] == {"ID": OWNER.canonical_id, "DisplayName": "root"}
    (only,) = listed["Buckets"]["Bucket"]
    assert only["Name"] == "bucket"
    assert only["CreationDate"].startswith("2023-11-14T")
    assert "BucketRegion" not in only


def test_buckets_come_in_pages_when_asked(store: Store) -> None:
    store.ask("CreateBucket", "second")
    first = store.xml("ListBuckets", None, max_buckets="1")
    assert [each["Name"] for each in first["Buckets"]["Bucket"]] == ["bucket"]
    assert first["Buckets"]["Bucket"][0]["BucketRegion"] == "us-east-1"
    rest = store.xml(
        "ListBuckets", None, max_buckets="1", continuation_token=first["ContinuationToken"]
    )
    assert [each["Name"] for each in rest["Buckets"]["Bucket"]] == ["second"]
    assert "ContinuationToken" not in rest


@pytest.mark.parametrize("limit", ["0", "10001", "x", "-1", "", "99999999999"])
def test_an_impossible_page_of_buckets_is_refused(store: Store, limit: str) -> None:
    assert code_of(store, "ListBuckets", None, max_buckets=limit) == "InvalidArgument"


def test_a_bucket_made_again_is_fine_in_the_oldest_region_only(store: Store) -> None:
    made = [("Location", "/bucket"), ("x-amz-bucket-arn", "arn:aws:s3:::bucket")]
    assert store.ask("CreateBucket").headers == made
    tags = (
        b"<CreateBucketConfiguration><Tags><Tag><Key>k</Key><Value>v</Value></Tag></Tags>"
        b"</CreateBucketConfiguration>"
    )
    assert code_of(store, "CreateBucket", document=tags) == "BucketAlreadyOwnedByYou"
    other = Store(region="eu-west-1")
    asyncio.run(other.rig.ready())
    constraint = (
        b"<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint>"
        b"</CreateBucketConfiguration>"
    )
    assert code_of(other, "CreateBucket", document=constraint) == "BucketAlreadyOwnedByYou"
    other.ask("CreateBucket", "fresh", document=constraint)
    assert other.ask("GetBucketLocation", "fresh").body.endswith(  # type: ignore[union-attr]
        b">eu-west-1</LocationConstraint>"
    )
    assert code_of(other, "CreateBucket", "third") == "IllegalLocationConstraintException"
    assert code_of(store, "CreateBucket", "third", document=constraint) == (
        "InvalidLocationConstraint"
    )


def test_names_documents_and_headers_of_a_new_bucket_are_checked(store: Store) -> None:
    assert code_of(store, "CreateBucket", "No") == "InvalidBucketName"
    assert code_of(store, "CreateBucket", "good", document=b"<x") == "MalformedXML"
    writer = {"x-amz-object-ownership": "Writer"}
    assert code_of(store, "CreateBucket", "good", headers=writer) == "InvalidArgument"
    nobody = {"x-amz-object-ownership": ""}
    assert code_of(store, "CreateBucket", "good", headers=nobody) == "InvalidArgument"
    both = {"x-amz-object-ownership": "BucketOwnerEnforced", "x-amz-acl": "public-read"}
    refused = code_of(store, "CreateBucket", "good", headers=both)
    assert refused == "InvalidBucketAclWithObjectOwnership"


def test_head_location_versioning_and_delete(store: Store) -> None:
    assert ("x-amz-bucket-region", "us-east-1") in store.ask("HeadBucket").headers
    assert ("x-amz-bucket-arn", "arn:aws:s3:::bucket") in store.ask("HeadBucket").headers
    assert store.xml("GetBucketLocation") == ""
    assert store.xml("GetBucketVersioning") == ""
    assert store.ask("DeleteBucket").status == 204
    for name in ("HeadBucket", "DeleteBucket", "GetBucketLocation", "ListObjects"):
        assert code_of(store, name) == "NoSuchBucket"


def test_acls_show_the_owner_and_are_checked(store: Store) -> None:
    store.put("k")
    listed = store.xml("GetBucketAcl")
    (grant,) = listed["AccessControlList"]["Grant"]
    assert grant["Permission"] == "FULL_CONTROL"
    assert grant["Grantee"]["ID"] == listed["Owner"]["ID"] == OWNER.canonical_id
    body = store.ask("GetBucketAcl").body
    assert isinstance(body, bytes)
    assert code_of(store, "PutBucketAcl", document=body) == "InvalidArgument"  # no such account
    assert store.ask("PutBucketAcl", headers={"x-amz-acl": "private"}).status == 200
    assert store.ask("PutObjectAcl", "bucket", "k", headers={"x-amz-acl": "private"}).status == 200
    assert code_of(store, "PutBucketAcl", headers={"x-amz-acl": "nonsense"}) == "InvalidArgument"
    read = {"x-amz-grant-read": "id=1"}
    assert code_of(store, "PutBucketAcl", headers=read) == "InvalidArgument"
    other = body.replace(b"FULL_CONTROL", b"READS")
    assert code_of(store, "PutBucketAcl", document=other) == "MalformedACLError"
    assert code_of(store, "PutBucketAcl", document=b"<AccessControlPolicy><x/>") == "MalformedXML"
    assert code_of(store, "PutBucketAcl") == "MissingSecurityHeader"
    assert code_of(store, "GetObjectAcl", "bucket", "other") == "NoSuchKey"
    assert code_of(store, "GetObjectAcl", "bucket", "k", versionId="a" * 32) == "NoSuchVersion"
    assert code_of(store, "GetObjectAcl", "bucket", "k", versionId="x") == "InvalidArgument"
    assert store.ask("GetObjectAcl", "bucket", "k", versionId="null").status == 200


@pytest.mark.parametrize("kind", ["3", "0", "two", "22"])
def test_a_list_type_that_there_is_not_is_refused(store: Store, kind: str) -> None:
    assert code_of(store, "ListObjects", list_type=kind) == "InvalidArgument"


@pytest.mark.parametrize("kind", ["", "1"])
def test_the_first_list_type_may_be_named(store: Store, kind: str) -> None:
    assert store.xml("ListObjects", list_type=kind)["IsTruncated"] == "false"


def test_a_flat_listing_shows_each_object_as_stored(store: Store) -> None:
    store.put("a&b", "c")
    listed = store.xml("ListObjects")
    assert listed["IsTruncated"] == "false"
    assert listed["MaxKeys"] == "1000"
    assert names(listed) == (["a&b", "c"], [])
    first = listed["Contents"][0]
    assert first["ETag"] == f'"{(b"e" * 16).hex()}"'
    assert first["Size"] == "3"
    assert first["StorageClass"] == "STANDARD"
    assert first["LastModified"].endswith("Z")
    assert first["Owner"]["ID"] == OWNER.canonical_id


def test_version_two_follows_its_token_to_the_end(store: Store) -> None:
    store.put("a/1", "a/2", "b", "c/1", "d")
    seen: list[str] = []
    token: str | None = None
    while True:
        query = {"max_keys": "1", "delimiter": "/"}
        if token is not None:
            query["continuation_token"] = token
        page = store.xml("ListObjectsV2", **query)
        assert page["KeyCount"] == "1"
        keys, prefixes = names(page)
        seen += keys + prefixes
        if page["IsTruncated"] == "false":
            assert "NextContinuationToken" not in page
            break
        token = page["NextContinuationToken"]
    assert seen == ["a/", "b", "c/", "d"]


def test_version_one_follows_its_marker(store: Store) -> None:
    store.put("a/1", "a/2", "b")
    page = store.xml("ListObjects", delimiter="/", max_keys="1")
    assert page["NextMarker"] == "a/"
    rest = store.xml("ListObjects", delimiter="/", marker="a/")
    assert names(rest) == (["b"], [])
    assert "NextMarker" not in store.xml("ListObjects", max_keys="1")


def test_owners_come_with_version_two_only_when_asked(store: Store) -> None:
    store.put("k")
    assert "Owner" not in store.xml("ListObjectsV2")["Contents"][0]
    assert "Owner" in store.xml("ListObjectsV2", fetch_owner="true")["Contents"][0]


def test_names_are_url_encoded_when_asked(store: Store) -> None:
    store.put("foo+1/bar", "quux ab/thud", "asdf+b", "é\x01")
    listed = store.xml("ListObjects", delimiter="/", encoding_type="url")
    assert names(listed) == (["asdf%2Bb", "%C3%A9%01"], ["foo%2B1/", "quux%20ab/"])
    assert listed["EncodingType"] == "url"
    assert code_of(store, "ListObjects", encoding_type="gzip") == "InvalidArgument"


def test_keys_with_line_breaks_are_written_one_by_one(store: Store) -> None:
    store.put("a\nb", "c&d", "e")
    assert names(store.xml("ListObjects")) == (["a\nb", "c&d", "e"], [])
    encoded = store.xml("ListObjects", encoding_type="url")
    assert names(encoded) == (["a%0Ab", "c%26d", "e"], [])


def test_control_characters_are_references_in_plain_listings(store: Store) -> None:
    store.put("a\x01b")
    body = store.ask("ListObjectsV2").body
    assert isinstance(body, bytes)
    assert b"<Key>a&#x1;b</Key>" in body


@pytest.mark.parametrize("text", ["blah", "-1", "2147483648", "1.5", "99999999999999"])
def test_an_impossible_number_of_keys_is_refused(store: Store, text: str) -> None:
    assert code_of(store, "ListObjects", max_keys=text) == "InvalidArgument"


def test_zero_and_too_many_keys_are_taken(store: Store) -> None:
    store.put("k")
    nothing = store.xml("ListObjectsV2", max_keys="0")
    assert (names(nothing), nothing["IsTruncated"]) == (([], []), "false")
    assert store.xml("ListObjects", max_keys="5000")["MaxKeys"] == "1000"


@pytest.mark.parametrize("token", ["x", "AA==", "AQlr", "é", "AQD_", "A" * 5000])
def test_a_foreign_token_is_refused(store: Store, token: str) -> None:
    assert code_of(store, "ListObjectsV2", continuation_token=token) == "InvalidArgument"


def test_a_token_survives_the_delete_of_the_key_it_names(store: Store) -> None:
    store.put("a", "b", "c")
    token = store.xml("ListObjectsV2", max_keys="1")["NextContinuationToken"]

    async def delete() -> None:
        entry, found = await store.rig.metadata.lookup("bucket", "a", OWNER)
        await store.rig.metadata.commits.delete(entry, entry.object_key("a"), previous=found)

    asyncio.run(delete())
    assert names(store.xml("ListObjectsV2", continuation_token=token)) == (["b", "c"], [])


def test_each_object_is_its_null_version(store: Store) -> None:
    store.put("a", "b/1", "c")
    listed = store.xml("ListObjectVersions", delimiter="/", max_keys="1")
    (version,) = listed["Version"]
    assert (version["Key"], version["VersionId"], version["IsLatest"]) == ("a", "null", "true")
    assert (listed["NextKeyMarker"], listed["NextVersionIdMarker"]) == ("a", "null")
    rest = store.xml("ListObjectVersions", delimiter="/", key_marker="a", version_id_marker="null")
    assert [each["Key"] for each in rest["Version"]] == ["c"]
    assert [each["Prefix"] for each in rest["CommonPrefixes"]] == ["b/"]
    assert code_of(store, "ListObjectVersions", version_id_marker="null") == "InvalidArgument"


def test_errors_of_decoding_are_answers_themselves() -> None:
    assert to_s3_error(S3Error(ErrorCode.MALFORMED_XML)) is not None
