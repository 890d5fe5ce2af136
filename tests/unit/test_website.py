"""Websites: which rule meets a request and where it sends it, and documents both ways."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.website import Website, document_key, folder_location, location_of, routed
from gateway.metadata.website import pack_website, stored_website
from gateway.operations.website import website_fields, website_of
from gateway.s3.errors import S3Error
from gateway.s3.website_documents import parse_website, website_elements

INDEX = "<IndexDocument><Suffix>index.html</Suffix></IndexDocument>"
EVERYTHING = (
    f"{INDEX}<ErrorDocument><Key>error.html</Key></ErrorDocument><RoutingRules>"
    "<RoutingRule><Condition><KeyPrefixEquals>docs/</KeyPrefixEquals></Condition>"
    "<Redirect><ReplaceKeyPrefixWith>documents/</ReplaceKeyPrefixWith></Redirect></RoutingRule>"
    "<RoutingRule><Condition><HttpErrorCodeReturnedEquals>404</HttpErrorCodeReturnedEquals>"
    "<KeyPrefixEquals>img/</KeyPrefixEquals></Condition><Redirect><HostName>other.test</HostName>"
    "<Protocol>https</Protocol><HttpRedirectCode>302</HttpRedirectCode>"
    "<ReplaceKeyWith>none.png</ReplaceKeyWith></Redirect></RoutingRule></RoutingRules>"
)


def _read(inside: str) -> Website:
    document = f"<WebsiteConfiguration>{inside}</WebsiteConfiguration>"
    return website_of(parse_website(document.encode()))


@pytest.mark.parametrize(
    ("key", "document"),
    [("", "index.html"), ("a/", "a/index.html"), ("a", "a"), ("/", "/index.html")],
)
def test_a_folder_is_its_index_document(key: str, document: str) -> None:
    assert document_key(_read(INDEX), key) == document


@pytest.mark.parametrize(
    ("key", "status", "location"),
    [
        ("docs/a b?", None, "http://here.test/documents/a%20b%3F"),
        ("img/x", 404, "https://other.test/none.png"),
        ("img/x", 403, None),
        ("img/x", None, None),
        ("docs/a", 404, None),
        ("x", 404, None),
    ],
)
def test_rules_send_away_what_meets_their_conditions(
    key: str, status: int | None, location: str | None
) -> None:
    rule = routed(_read(EVERYTHING), key, status)
    if location is None:
        assert rule is None
    else:
        assert rule is not None
        assert location_of(rule, key, protocol="http", host="here.test") == location


def test_a_location_holds_no_raw_controls() -> None:
    assert folder_location("a\r\nb é") == "/a%0D%0Ab%20%C3%A9/"


@pytest.mark.parametrize(
    "inside",
    [
        "<RedirectAllRequestsTo><HostName>a.test</HostName></RedirectAllRequestsTo>",
        INDEX,
        EVERYTHING,
    ],
)
def test_a_document_is_kept_and_shown_as_it_was_said(inside: str) -> None:
    website = _read(inside)
    assert stored_website(pack_website(website), "bucket") == website
    assert _read("".join(website_elements(website_fields(website)))) == website


REDIRECT = "<Redirect><HostName>h</HostName></Redirect>"


@pytest.mark.parametrize(
    ("inside", "code"),
    [
        ("", "InvalidArgument"),
        ("<ErrorDocument><Key>e</Key></ErrorDocument>", "InvalidArgument"),
        ("<IndexDocument><Suffix>a/b</Suffix></IndexDocument>", "InvalidArgument"),
        ("<IndexDocument><Suffix/></IndexDocument>", "InvalidArgument"),
        ("<IndexDocument><Other/></IndexDocument>", "MalformedXML"),
        (f"{INDEX}{INDEX}", "MalformedXML"),
        (f"{INDEX}<ErrorDocument/>", "MalformedXML"),
        (
            f"{INDEX}<RedirectAllRequestsTo><HostName>h</HostName></RedirectAllRequestsTo>",
            "InvalidArgument",
        ),
        ("<RedirectAllRequestsTo/>", "MalformedXML"),
        (
            "<RedirectAllRequestsTo><HostName>h</HostName><Protocol>ftp</Protocol>"
            "</RedirectAllRequestsTo>",
            "InvalidRequest",
        ),
        (f"{INDEX}<RoutingRules><RoutingRule/></RoutingRules>", "MalformedXML"),
        (
            f"{INDEX}<RoutingRules><RoutingRule><Redirect/></RoutingRule></RoutingRules>",
            "MalformedXML",
        ),
        (
            f"{INDEX}<RoutingRules>{f'<RoutingRule>{REDIRECT}</RoutingRule>' * 51}</RoutingRules>",
            "InvalidRequest",
        ),
        (
            f"{INDEX}<RoutingRules><RoutingRule><Redirect><HttpRedirectCode>200</HttpRedirectCode>"
            "</Redirect></RoutingRule></RoutingRules>",
            "InvalidRequest",
        ),
        (
            f"{INDEX}<RoutingRules><RoutingRule><Redirect><ReplaceKeyWith>a</ReplaceKeyWith>"
            "<ReplaceKeyPrefixWith>b</ReplaceKeyPrefixWith></Redirect></RoutingRule></RoutingRules>",
            "InvalidRequest",
        ),
        (
            f"{INDEX}<RoutingRules><RoutingRule><Condition><HttpErrorCodeReturnedEquals>200"
            f"</HttpErrorCodeReturnedEquals></Condition>{REDIRECT}</RoutingRule></RoutingRules>",
            "InvalidRequest",
        ),
    ],
)
def test_a_wrong_document_is_refused(inside: str, code: str) -> None:
    with pytest.raises(S3Error) as refused:
        _read(inside)
    assert refused.value.code.code == code


@given(st.lists(st.sampled_from([*EVERYTHING.replace(">", ">\0").split("\0"), "x", INDEX])))
def test_any_document_is_read_or_refused(pieces: list[str]) -> None:
    with contextlib.suppress(S3Error):
        _read("".join(pieces))
