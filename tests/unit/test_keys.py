"""Metadata keys: order, inverses, and that no key hides another."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.metadata import keys
from placement.ids import BucketId, UploadId
from placement.metastore.port import prefix_end

BUCKET = BucketId(b"\xff\x00bucket")
UPLOAD = UploadId(b"\xffuploaduploadupl")
s3_keys = st.text(max_size=8).map(str.encode)


@given(s3_keys)
def test_a_record_key_gives_its_s3_key_back(key: bytes) -> None:
    assert keys.key_of_object(keys.object_(BUCKET, key)) == key


@given(s3_keys, s3_keys)
def test_record_keys_are_ordered_as_s3_keys(one: bytes, other: bytes) -> None:
    assert (one < other) == (keys.object_(BUCKET, one) < keys.object_(BUCKET, other))


@given(s3_keys, s3_keys)
def test_no_record_key_begins_another(one: bytes, other: bytes) -> None:
    if one != other:
        assert not keys.object_(BUCKET, one).startswith(keys.object_(BUCKET, other))


@given(s3_keys, s3_keys)
def test_a_prefix_covers_exactly_the_keys_that_begin_with_it(prefix: bytes, key: bytes) -> None:
    start = keys.objects_of(BUCKET) + keys.escape(prefix)
    inside = start <= keys.object_(BUCKET, key) < prefix_end(start)
    assert inside == key.startswith(prefix)


@given(s3_keys)
def test_an_upload_names_the_object_it_completes_to(key: bytes) -> None:
    upload = keys.upload(BUCKET, key, UPLOAD)
    assert keys.object_of_upload(upload) == keys.object_(BUCKET, key)
    assert keys.finished(upload) == b"f/" + upload[2:]
