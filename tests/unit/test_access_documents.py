"""Lists, ownership and blocks as clients send them: read, refused, never worse than an S3 error."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import acl
from gateway.operations.access_lists import AclAsked, acl_asked
from gateway.s3.access_documents import (
    WantedGrant,
    parse_acl,
    parse_ownership,
    parse_public_access_block,
)
from gateway.s3.errors import ErrorCode, S3Error

HEADERS = [
    ({}, None),
    ({"x-amz-acl": "public-read"}, AclAsked("public-read")),
    (
        {"x-amz-grant-read": 'id="a", uri=http://x/'},
        AclAsked(
            None,
            (WantedGrant("CanonicalUser", "a", "READ"), WantedGrant("Group", "http://x/", "READ")),
        ),
    ),
    (
        {"x-amz-grant-full-control": "emailAddress=a@b", "x-amz-grant-write": "id=c"},
        AclAsked(
            None,
            (
                WantedGrant("CanonicalUser", "c", "WRITE"),
                WantedGrant("AmazonCustomerByEmail", "a@b", "FULL_CONTROL"),
            ),
        ),
    ),
    ({"x-amz-acl": "public"}, ErrorCode.INVALID_ARGUMENT),
    ({"x-amz-grant-read": "id"}, ErrorCode.INVALID_ARGUMENT),
    ({"x-amz-grant-read": "id=a id=b"}, ErrorCode.INVALID_ARGUMENT),
    ({"x-amz-grant-read": "id=a", "x-amz-acl": "private"}, ErrorCode.INVALID_REQUEST),
]


@pytest.mark.parametrize(("headers", "expected"), HEADERS)
def test_headers_ask_for_a_list(
    headers: dict[str, str], expected: AclAsked | ErrorCode | None
) -> None:
    if isinstance(expected, ErrorCode):
        with pytest.raises(S3Error) as caught:
            acl_asked(headers)
        assert caught.value.code is expected
    else:
        assert acl_asked(headers) == expected
        assert acl_asked({}, headers) == expected


def test_canned_lists_are_as_documented() -> None:
    def canned(name: str, owner: str = "o", *, of_bucket: bool = False) -> acl.Grants | None:
        return acl.canned_grants(name, owner, "b", of_bucket=of_bucket)

    own = ("o", "FULL_CONTROL")
    assert canned("private") is None
    assert canned("public-read") == (("AllUsers", "READ"), own)
    assert canned("public-read-write") == (("AllUsers", "READ"), ("AllUsers", "WRITE"), own)
    assert canned("authenticated-read") == (("AuthenticatedUsers", "READ"), own)
    assert canned("bucket-owner-read") == (own, ("b", "READ"))
    assert canned("bucket-owner-full-control") == (own, ("b", "FULL_CONTROL"))
    assert canned("bucket-owner-full-control", "b") is None
    assert canned("bucket-owner-full-control", of_bucket=True) is None
    log = (("LogDelivery", "WRITE"), ("LogDelivery", "READ_ACP"), own)
    assert canned("log-delivery-write", of_bucket=True) == log


def grant(
    permission: str = "READ", kind: str = "CanonicalUser", value: str = "<ID>a</ID>"
) -> bytes:
    xsi = "http://www.w3.org/2001/XMLSchema-instance"
    return (
        f'<AccessControlPolicy><AccessControlList><Grant><Grantee xmlns:xsi="{xsi}" '
        f'xsi:type="{kind}">{value}</Grantee><Permission>{permission}</Permission></Grant>'
        "</AccessControlList></AccessControlPolicy>"
    ).encode()


def test_documents_are_read() -> None:
    assert parse_acl(grant()).grants == (WantedGrant("CanonicalUser", "a", "READ"),)
    assert parse_public_access_block(
        b"<PublicAccessBlockConfiguration><BlockPublicPolicy>TRUE</BlockPublicPolicy>"
        b"</PublicAccessBlockConfiguration>"
    ) == (False, False, True, False)
    rule = b"<Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule>"
    assert (
        parse_ownership(b"<OwnershipControls>" + rule + b"</OwnershipControls>") == "ObjectWriter"
    )


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<AccessControlPolicy/>",
        b"<AccessControlPolicy><Other/></AccessControlPolicy>",
        grant(kind="Nobody"),
        grant(kind="Group"),
        grant(value="<ID/>"),
        grant(value="<ID><ID>a</ID></ID>"),
    ],
)
def test_lists_that_are_none_are_refused(text: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        parse_acl(text)
    assert caught.value.code in (ErrorCode.MALFORMED_ACL, ErrorCode.MALFORMED_XML)


NAMES = st.sampled_from(
    ["AccessControlPolicy", "Owner", "ID", "AccessControlList", "Grant", "Grantee", "Permission"]
)
TREES = st.recursive(
    st.text("ab<&", max_size=3).map(lambda text: text.replace("<", "&lt;").replace("&", "&amp;")),
    lambda inner: st.builds(
        lambda name, parts: f"<{name}>{''.join(parts)}</{name}>", NAMES, st.lists(inner, max_size=3)
    ),
)


@given(TREES)
def test_random_documents_are_refused_in_order(inside: str) -> None:
    for root, parse in (
        ("AccessControlPolicy", parse_acl),
        ("OwnershipControls", parse_ownership),
        ("PublicAccessBlockConfiguration", parse_public_access_block),
    ):
        with contextlib.suppress(S3Error):
            parse(f"<{root}>{inside}</{root}>".encode())


@given(st.text(alphabet='id=uriemailAddress",  x\n\xe9', max_size=60))
def test_random_grants_are_refused_in_order(text: str) -> None:
    with contextlib.suppress(S3Error):
        acl_asked({"x-amz-grant-read": text})
