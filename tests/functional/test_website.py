"""Websites over their own port: what a browser gets, and the configuration over S3."""

import json
import re
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.functional.conftest import error_of
from tests.functional.store_process import StoreProcess, served

CONFIGURATION = {
    "IndexDocument": {"Suffix": "index.html"},
    "ErrorDocument": {"Key": "error.html"},
    "RoutingRules": [
        {
            "Condition": {"KeyPrefixEquals": "docs/"},
            "Redirect": {"ReplaceKeyPrefixWith": "documents/", "HttpRedirectCode": "302"},
        },
        {
            "Condition": {"HttpErrorCodeReturnedEquals": "404", "KeyPrefixEquals": "gone/"},
            "Redirect": {"HostName": "old.test", "Protocol": "https", "HttpRedirectCode": "301"},
        },
    ],
}
BUCKET = "www.site.test"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Browser(NamedTuple):
    host: str
    port: int

    def ask(self, path: str, host: str = BUCKET, method: str = "GET", **headers: str) -> Answer:
        connection = HTTPConnection(self.host, self.port, timeout=30)
        try:
            connection.request(method, path, headers={"Host": host, **headers})
            response = connection.getresponse()
            told = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, told, response.read())
        finally:
            connection.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    """A store that serves websites, one of them public."""
    directory: Path = tmp_path_factory.mktemp("websites") / "data"
    options = ("--website-port", "0", "--workers", "1", "--domain", "web.test")
    with served(directory, options) as running:
        s3 = running.client()
        for bucket in (BUCKET, "closed"):
            s3.create_bucket(Bucket=bucket)
            s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=CONFIGURATION)
        statement = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": ["s3:GetObject", "s3:ListBucket"],
            "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"],
        }
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
        for key in ("index.html", "error.html", "folder/index.html", "page"):
            s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode(), ContentType="text/html")
        s3.put_object(Bucket=BUCKET, Key="moved", WebsiteRedirectLocation="/page")
        yield running


@pytest.fixture
def s3(store: StoreProcess) -> Any:
    return store.client()


@pytest.fixture
def browser(store: StoreProcess) -> Browser:
    found = re.search(r"^websites http://(.+):(\d+)$", store.output, re.MULTILINE)
    assert found is not None, store.output
    return Browser(found[1], int(found[2]))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", b"index.html"),
        ("/folder/", b"folder/index.html"),
        ("/page", b"page"),
        ("/page?x=1&versionId=abc", b"page"),
    ],
)
def test_paths_are_documents(browser: Browser, path: str, body: bytes) -> None:
    answer = browser.ask(path)
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["content-type"] == "text/html"
    head = browser.ask(path, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(body))


def test_the_page_for_errors_may_be_elsewhere(s3: Any, browser: Browser) -> None:
    named = {"Bucket": BUCKET, "Key": "error.html", "ContentType": "text/html"}
    try:
        s3.put_object(**named, WebsiteRedirectLocation="/page")
        answer = browser.ask("/none")
        assert (answer.status, answer.headers["location"]) == (301, "/page")
    finally:
        s3.put_object(**named, Body=b"error.html")


def test_browsers_may_ask_on_conditions_and_for_ranges(browser: Browser) -> None:
    etag = browser.ask("/page").headers["etag"]
    assert browser.ask("/page", **{"If-None-Match": etag}).status == 304
    part = browser.ask("/page", Range="bytes=1-2")
    assert (part.status, part.body) == (206, b"ag")


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/folder", 302, "/folder/"),
        ("/moved", 301, "/page"),
        ("/docs/a", 302, "http://www.site.test/documents/a"),
        ("/gone/a", 301, "https://old.test/gone/a"),
    ],
)
def test_some_paths_are_elsewhere(browser: Browser, path: str, status: int, location: str) -> None:
    for method in ("GET", "HEAD"):
        answer = browser.ask(path, method=method)
        assert (answer.status, answer.headers["location"]) == (status, location)
        assert answer.body == b""


def test_what_is_not_there_is_the_error_document_with_its_status(browser: Browser) -> None:
    answer = browser.ask("/nothing")
    assert (answer.status, answer.body) == (404, b"error.html")


def test_what_nobody_may_read_is_a_page_of_ours(browser: Browser) -> None:
    answer = browser.ask("/page", host="closed.web.test:80")
    assert answer.status == 403
    assert b"<li>Code: AccessDenied</li>" in answer.body
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    ("host", "method", "status", "code"),
    [
        ("nobody.web.test", "GET", 404, b"NoSuchBucket"),
        ("-", "GET", 404, b"NoSuchBucket"),
        (BUCKET, "POST", 405, b"MethodNotAllowed"),
        (BUCKET, "DELETE", 405, b"MethodNotAllowed"),
    ],
)
def test_errors_are_pages(
    browser: Browser, host: str, method: str, status: int, code: bytes
) -> None:
    answer = browser.ask("/", host=host, method=method)
    assert answer.status == status
    assert b"Code: " + code in answer.body


def test_a_signature_or_a_key_in_headers_opens_nothing(browser: Browser) -> None:
    answer = browser.ask("/page", host="closed", Authorization="AWS AKIA:x")
    assert answer.status == 403


def test_a_bucket_without_a_website_says_so(s3: Any, browser: Browser) -> None:
    s3.create_bucket(Bucket="plain")
    assert error_of(s3.get_bucket_website, Bucket="plain")[0] == "NoSuchWebsiteConfiguration"
    assert b"NoSuchWebsiteConfiguration" in browser.ask("/", host="plain").body
    everything = {"RedirectAllRequestsTo": {"HostName": "else.test", "Protocol": "https"}}
    s3.put_bucket_website(Bucket="plain", WebsiteConfiguration=everything)
    answer = browser.ask("/a/b", host="plain")
    assert (answer.status, answer.headers["location"]) == (301, "https://else.test/a/b")
    got = s3.get_bucket_website(Bucket="plain")
    assert got["RedirectAllRequestsTo"] == everything["RedirectAllRequestsTo"]
    s3.delete_bucket_website(Bucket="plain")
    assert browser.ask("/", host="plain").status == 404


def test_a_configuration_is_kept_as_it_was_said(s3: Any) -> None:
    got = s3.get_bucket_website(Bucket=BUCKET)
    del got["ResponseMetadata"]
    assert got == CONFIGURATION
    refused = error_of(
        s3.put_bucket_website,
        Bucket=BUCKET,
        WebsiteConfiguration={"ErrorDocument": {"Key": "error.html"}},
    )
    assert refused == ("InvalidArgument", 400)


def test_where_an_object_redirects_is_told_and_not_copied(s3: Any) -> None:
    named = {"Bucket": BUCKET, "Key": "moved"}
    assert s3.head_object(**named)["WebsiteRedirectLocation"] == "/page"
    assert s3.get_object(**named)["WebsiteRedirectLocation"] == "/page"
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=named)
    assert "WebsiteRedirectLocation" not in s3.head_object(Bucket=BUCKET, Key="copy")
    s3.copy_object(
        Bucket=BUCKET, Key="copy", CopySource=f"{BUCKET}/copy", WebsiteRedirectLocation="/x"
    )
    assert s3.head_object(Bucket=BUCKET, Key="copy")["WebsiteRedirectLocation"] == "/x"
    refused = error_of(s3.put_object, **named, Body=b"", WebsiteRedirectLocation="page")
    assert refused == ("InvalidRedirectLocation", 400)
