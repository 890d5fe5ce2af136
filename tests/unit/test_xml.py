"""Request documents and response writing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from gateway.s3 import elements
from gateway.s3.documents import (
    BucketConfiguration,
    CompletedPart,
    parse_complete,
    parse_create_bucket,
    parse_delete,
)
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.xml import NAMESPACE, document, element, escape, optional_element

NS = f'xmlns="{NAMESPACE}"'


def delete_of(*keys: str, ns: str = NS, tail: str = "") -> bytes:
    objects = "".join(f"<Object>{element('Key', key)}</Object>" for key in keys)
    return f"<Delete {ns}>{objects}{tail}</Delete>".encode()


def test_delete() -> None:
    for ns in (NS, "", 'xmlns="http://other/"'):
        found = parse_delete(delete_of("a<&b", " x ", ns=ns, tail="<Quiet>true</Quiet>"))
        assert [entry.key for entry in found.objects] == ["a<&b", " x "]
        assert found.quiet
    body = b"<?xml version='1.0'?><!-- c --><Delete><Object><Key>k</Key><VersionId>null</VersionId><ETag>e</ETag></Object></Delete>"
    found = parse_delete(body)
    assert found.objects[0].version_id == "null"
    assert found.objects[0].etag == "e"
    assert not found.quiet
    assert len(parse_delete(delete_of(*["k"] * 1000)).objects) == 1000


BAD_DELETES = [
    b"",
    b" ",
    b"\0",
    b"<Delete/>",
    b"<Delete>",
    b"<delete><Object><Key>k</Key></Object></delete>",
    b"<Delete><Object/></Delete>",
    b"<Delete><Object><Key/></Object></Delete>",
    b"<Delete><Object><Key>a</Key><Key>b</Key></Object></Delete>",
    b"<Delete><Object><Key><b>a</b></Key></Object></Delete>",
    b"<Delete><Object><Key>a</Key><X/></Object></Delete>",
    b"<Delete><Object><Key>a</Key></Object><Quiet>maybe</Quiet></Delete>",
    b"<Delete><Object><Key>a</Key></Object></Delete>x",
    b"<Delete><Object><Key>\xff</Key></Object></Delete>",
    delete_of(*["k"] * 1001),
    b"<a>" * 300 + b"</a>" * 300,
    b'<!DOCTYPE Delete [<!ENTITY x "y">]><Delete><Object><Key>&x;</Key></Object></Delete>',
    '<!DOCTYPE Delete [<!ENTITY x "y">]><Delete><Object><Key>k</Key></Object></Delete>'.encode(
        "utf-16"
    ),
    b'<!DOCTYPE Delete SYSTEM "file:///etc/passwd"><Delete><Object><Key>k</Key></Object></Delete>',
    b"<Delete><Object><Key>&undefined;</Key></Object></Delete>",
    b"<" * (2 * elements.MAX_ELEMENTS + 1),
]


@pytest.mark.parametrize("body", BAD_DELETES)
def test_documents_that_are_refused(body: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        parse_delete(body)
    assert caught.value.code is ErrorCode.MALFORMED_XML


@given(st.binary(max_size=200))
def test_random_documents_are_malformed(body: bytes) -> None:
    for parse in (parse_delete, parse_complete):
        with pytest.raises(S3Error) as caught:
            parse(body)
        assert caught.value.code is ErrorCode.MALFORMED_XML


def test_a_document_cut_anywhere_is_malformed() -> None:
    body = delete_of("a", "b")
    for end in range(len(body)):
        with pytest.raises(S3Error):
            parse_delete(body[:end])


def test_complete() -> None:
    body = (
        f"<CompleteMultipartUpload {NS}><Part><ETag>&quot;e&quot;</ETag><PartNumber>1</PartNumber>"
        "<ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part><Part><PartNumber> 3 </PartNumber>"
        "<ETag>f</ETag></Part></CompleteMultipartUpload>"
    )
    assert parse_complete(body.encode()) == (
        CompletedPart(1, '"e"', {"ChecksumCRC32": "AAAAAA=="}),
        CompletedPart(3, "f", {}),
    )
    for part in (
        "",
        "<Part/>",
        "<Part><PartNumber>1</PartNumber></Part>",
        "<Part><PartNumber>-1</PartNumber><ETag>e</ETag></Part>",
        "<Part><PartNumber>x</PartNumber><ETag>e</ETag></Part>",
        "<Part><PartNumber>1</PartNumber><ETag>e</ETag><Other/></Part>",
        "<Port/>",
    ):
        with pytest.raises(S3Error):
            parse_complete(f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>".encode())


def test_create_bucket() -> None:
    assert parse_create_bucket(b"") == BucketConfiguration()
    root = "CreateBucketConfiguration"
    body = f"<{root} {NS}><LocationConstraint>eu</LocationConstraint></{root}>".encode()
    assert parse_create_bucket(body).location_constraint == "eu"
    assert parse_create_bucket(f"<{root}><Bucket/></{root}>".encode()).unoffered == ("Bucket",)
    assert parse_create_bucket(f"<{root}><Tags/></{root}>".encode()).tags == ()
    tags = "<Tags><Tag><Key>a</Key><Value>b</Value></Tag></Tags>"
    assert parse_create_bucket(f"<{root}>{tags}</{root}>".encode()).tags == (("a", "b"),)
    with pytest.raises(S3Error):
        parse_create_bucket(f"<{root}>{tags}{tags}</{root}>".encode())
    for bad in (b"x", b"<a/>", f"<{root}><X/></{root}>".encode()):
        with pytest.raises(S3Error):
            parse_create_bucket(bad)


@given(
    st.text(
        alphabet=st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
    )
)
def test_escaped_text_comes_back(text: str) -> None:
    tree = etree.fromstring(document("Root", [element("Key", text)]))
    assert (tree[0].text or "") == text
    assert tree.tag == f"{{{NAMESPACE}}}Root"


def test_control_characters_become_references() -> None:
    assert escape("a\x00\x01\r\x1f\x7fb\t\n") == "a&#x0;&#x1;&#xd;&#x1f;&#x7f;b\t\n"
    assert optional_element("A", None) == ""
    assert optional_element("A", "") == "<A></A>"
