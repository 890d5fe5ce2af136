"""Raw path and Host to bucket and key; query arguments; bucket names; copy sources."""

from collections.abc import Callable
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.addressing import (
    Address,
    bucket_of_host,
    check_bucket_name,
    locate,
    parse_query,
    split_target,
)
from gateway.s3.errors import ErrorCode, S3Error

HOST = "localhost:9000"


@pytest.mark.parametrize(
    ("path", "bucket", "key"),
    [
        (b"/", None, None),
        (b"/b", "b", None),
        (b"/b/", "b", None),
        (b"/b/k", "b", "k"),
        (b"/b/k/", "b", "k/"),
        (b"/b//k", "b", "/k"),
        (b"/b/../c/./d", "b", "../c/./d"),
        (b"/b/a%2Fb%20c+d", "b", "a/b c+d"),
        (b"/b/%E2%82%AC", "b", "€"),
        ("/b/€".encode(), "b", "€"),
        (b"/b/%00", "b", "\0"),
        (b"/b/%2525", "b", "%25"),
    ],
)
def test_path_style(path: bytes, bucket: str | None, key: str | None) -> None:
    assert locate(path, HOST) == Address(bucket, key)


@pytest.mark.parametrize("path", [b"b/k", b"", b"/b/%", b"/b/%4", b"/b/%zz", b"/b/%ff", b"//k"])
def test_what_is_no_address(path: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        locate(path, HOST)
    assert caught.value.code is ErrorCode.INVALID_URI


def test_keys_end_at_1024_bytes() -> None:
    assert locate(b"/b/" + b"k" * 1024, HOST).key == "k" * 1024
    assert locate(b"/b/" + b"%C3%A9" * 512, HOST).key == "é" * 512
    for path in (b"k" * 1025, b"%C3%A9" * 513):
        with pytest.raises(S3Error) as caught:
            locate(b"/b/" + path, HOST)
        assert caught.value.code is ErrorCode.KEY_TOO_LONG


DOMAINS = ("s3.example.com", "example.org")


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("b.s3.example.com", "b"),
        ("B.S3.Example.com:9000", "b"),
        ("a.b.example.org", "a.b"),
        ("s3.example.com", None),
        ("s3.example.com:80", None),
        ("xs3.example.com", None),
        (".example.org", None),
        ("localhost", None),
        ("[::1]:9000", None),
        ("", None),
    ],
)
def test_virtual_hosts(host: str, bucket: str | None) -> None:
    assert bucket_of_host(host, DOMAINS) == bucket
    if bucket is not None:
        assert locate(b"/k/l", host, DOMAINS) == Address(bucket, "k/l", virtual_host=True)
        assert locate(b"/", host, DOMAINS) == Address(bucket, None, virtual_host=True)
        assert locate(b"//k", host, DOMAINS).key == "/k"


@given(st.text(min_size=1, max_size=300))
def test_any_encoded_key_comes_back(key: str) -> None:
    key = key.encode("utf-8", "replace").decode()
    assert locate(b"/b/" + quote(key, safe="").encode(), HOST).key == key


@given(st.binary(max_size=60))
def test_random_paths_never_crash(path: bytes) -> None:
    expected = (ErrorCode.INVALID_URI, ErrorCode.KEY_TOO_LONG, None)
    assert code_of(lambda: locate(b"/" + path, HOST)) in expected
    assert code_of(lambda: parse_query(path)) in expected


def code_of(call: Callable[[], object]) -> ErrorCode | None:
    try:
        call()
    except S3Error as error:
        return error.code
    return None


def test_query_arguments() -> None:
    assert split_target(b"/b/k?a=b?c") == (b"/b/k", b"a=b?c")
    assert parse_query(b"") == {}
    assert parse_query(b"uploads") == {"uploads": ""}
    assert parse_query(b"a=1&a=2&&b=x%3Dy%26&c=d+e%2B&=z") == {
        "a": "1",
        "b": "x=y&",
        "c": "d e+",
        "": "z",
    }
    with pytest.raises(S3Error):
        parse_query(b"a=%ff")
    with pytest.raises(S3Error) as caught:
        parse_query(b"&".join(b"a%d=1" % i for i in range(129)))
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=10), max_size=10))
def test_any_encoded_query_comes_back(arguments: dict[str, str]) -> None:
    def clean(text: str) -> str:
        return text.encode("utf-8", "replace").decode()

    arguments = {clean(name): clean(value) for name, value in arguments.items()}
    assert parse_query(urlencode(arguments).encode()) == arguments


@pytest.mark.parametrize("name", ["abc", "a-b.c", "0" * 63, "1.2.3", "a.b-c"])
def test_bucket_names(name: str) -> None:
    check_bucket_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "ab", "a" * 64, "Abc", "a_b", "-abc", "abc-", ".abc", "abc.", "a..b", "a.-b", "a-.b"),
        *("192.168.1.1", "xn--a", "sthree-a", "amzn-s3-demo-a", "a-s3alias", "a--ol-s3", "a.mrap"),
        *("a--x-s3", "a--table-s3", "abc\n", "é" * 5, "٣٣٣"),
    ],
)
def test_bucket_names_that_are_refused(name: str) -> None:
    with pytest.raises(S3Error) as caught:
        check_bucket_name(name)
    assert caught.value.code is ErrorCode.INVALID_BUCKET_NAME
