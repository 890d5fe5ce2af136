"""Cross-origin rules of buckets: set, asked by a browser before it calls, and told with answers."""

from typing import Any

import httpx
import pytest

from tests.functional.conftest import error_of
from tests.functional.store_process import StoreProcess

ORIGIN = "http://app.example.com"
RULES = [
    {
        "ID": "app",
        "AllowedOrigins": ["http://*.example.com"],
        "AllowedMethods": ["GET", "PUT"],
        "AllowedHeaders": ["x-amz-*"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": 60,
    },
    {"AllowedOrigins": ["*"], "AllowedMethods": ["HEAD"]},
]


@pytest.fixture
def shared(s3: Any, bucket: str) -> str:
    """A bucket with the rules."""
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    return bucket


def _preflight(url: str, method: str, **more: str) -> httpx.Response:
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": method, **more}
    return httpx.options(url, headers=headers)


def test_rules_are_kept_until_they_are_deleted(s3: Any, shared: str) -> None:
    assert s3.get_bucket_cors(Bucket=shared)["CORSRules"] == RULES
    s3.delete_bucket_cors(Bucket=shared)
    assert error_of(s3.get_bucket_cors, Bucket=shared) == ("NoSuchCORSConfiguration", 404)


def test_only_who_may_sets_rules(other_s3: Any, shared: str) -> None:
    wanted = {"CORSRules": RULES}
    refused = error_of(other_s3.put_bucket_cors, Bucket=shared, CORSConfiguration=wanted)
    assert refused == ("AccessDenied", 403)
    assert error_of(other_s3.get_bucket_cors, Bucket=shared) == ("AccessDenied", 403)
    assert error_of(other_s3.delete_bucket_cors, Bucket=shared) == ("AccessDenied", 403)


def test_a_rule_that_aws_refuses_is_refused(s3: Any, bucket: str) -> None:
    rule = {"AllowedOrigins": ["*"], "AllowedMethods": ["PATCH"]}
    refused = error_of(s3.put_bucket_cors, Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    assert refused == ("InvalidRequest", 400)


def test_a_preflight_is_answered_without_a_signature(store: StoreProcess, shared: str) -> None:
    url = f"{store.endpoint}/{shared}/key"
    answer = _preflight(url, "PUT", **{"Access-Control-Request-Headers": "X-Amz-Date"})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-methods"] == "GET, PUT"
    assert answer.headers["access-control-allow-headers"] == "x-amz-date"
    assert answer.headers["access-control-max-age"] == "60"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "Origin" in answer.headers["vary"]


def test_a_preflight_that_no_rule_allows_is_forbidden(
    store: StoreProcess, s3: Any, shared: str
) -> None:
    url = f"{store.endpoint}/{shared}/key"
    for answer in (
        _preflight(url, "DELETE"),
        _preflight(url, "PUT", **{"Access-Control-Request-Headers": "x-other"}),
    ):
        assert answer.status_code == 403
        assert "<Code>AccessForbidden</Code>" in answer.text
        assert "CORSResponse: This CORS request is not allowed." in answer.text
        assert "access-control-allow-origin" not in answer.headers
    s3.delete_bucket_cors(Bucket=shared)
    no_method = httpx.options(url, headers={"Origin": ORIGIN})
    assert (no_method.status_code, "<Method>OPTIONS</Method>" in no_method.text) == (403, True)
    assert "CORS is not enabled for this bucket" in _preflight(url, "GET").text
    assert "Bucket not found" in _preflight(f"{store.endpoint}/no-such-bucket", "GET").text


def test_what_is_no_preflight_is_a_bad_request(store: StoreProcess, shared: str) -> None:
    url = f"{store.endpoint}/{shared}"
    assert "Origin request header needed" in httpx.options(url).text
    assert _preflight(url, "PATCH").status_code == 400
    assert httpx.options(url, headers={"Origin": ORIGIN}).status_code == 400


def test_answers_tell_what_the_rules_allow(store: StoreProcess, s3: Any, shared: str) -> None:
    s3.put_object(Bucket=shared, Key="key", Body=b"x")
    arguments = {"Bucket": shared, "Key": "key"}
    url = s3.generate_presigned_url("get_object", arguments)
    answer = httpx.get(url, headers={"Origin": ORIGIN})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-expose-headers"] == "ETag"
    head = httpx.head(
        s3.generate_presigned_url("head_object", arguments), headers={"Origin": "http://else"}
    )
    assert head.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-origin" not in httpx.get(url).headers
    wanted = {"Origin": ORIGIN, "Access-Control-Request-Headers": "x-other"}
    assert "access-control-allow-origin" not in httpx.get(url, headers=wanted).headers
    stranger = httpx.get(url, headers={"Origin": "http://else"})
    assert "access-control-allow-origin" not in stranger.headers


def test_refusals_tell_it_too(store: StoreProcess, shared: str) -> None:
    refused = httpx.get(f"{store.endpoint}/{shared}/key", headers={"Origin": ORIGIN})
    assert refused.status_code == 403
    assert refused.headers["access-control-allow-origin"] == ORIGIN
