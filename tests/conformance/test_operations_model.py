"""Our registry against the service model that the SDKs are made from."""

import re

import pytest
from botocore.session import get_session

from gateway.known import ALIASES, ELSEWHERE, KNOWN, KnownOperation
from gateway.operation import Match, Resource
from gateway.s3.known import _ACCEPTED_VALUES

MODEL = get_session().get_service_model("s3")


def offered() -> dict[str, Match]:
    registry = pytest.importorskip("gateway.operations.registry", exc_type=ImportError)
    # Browsers send PostObject, SDKs do not: it has no place in their model.
    return {
        operation.name: operation.match
        for operation in registry.OPERATIONS
        if operation.name != "PostObject"
    }


def model_match(name: str) -> tuple[str, Resource, set[str]]:
    """Method, resource, and the subresources of the request URI in the model."""
    http = MODEL.operation_model(name).http
    path, _, query = re.sub(r"\{[^}]*\}", "x", http["requestUri"]).partition("?")
    depth = len([piece for piece in path.split("/") if piece])
    resource = (Resource.SERVICE, Resource.BUCKET, Resource.OBJECT)[depth]
    return http["method"], resource, {part for part in query.split("&") if part}


def required_arguments(name: str) -> set[str]:
    shape = MODEL.operation_model(name).input_shape
    if shape is None:
        return set()
    return {
        member.serialization["name"]
        for key, member in shape.members.items()
        if key in shape.required_members and member.serialization.get("location") == "querystring"
    }


def test_every_operation_is_offered_or_known() -> None:
    rows = {row.name for row in KNOWN}
    names = set(MODEL.operation_names) - ELSEWHERE - set(ALIASES)
    assert names - rows - set(offered()) == set()
    assert rows - names == set(), "rows that S3 does not have"
    assert set(ALIASES.values()) <= rows | set(offered())


def test_nothing_is_both_offered_and_known() -> None:
    assert {row.name for row in KNOWN} & set(offered()) == set()


@pytest.mark.parametrize("row", KNOWN, ids=lambda row: row.name)
def test_known_rows_agree_with_the_model(row: KnownOperation) -> None:
    method, resource, query = model_match(row.name)
    assert (row.match.method, row.match.resource) == (method, resource)
    assert {part.partition("=")[0] for part in query} >= set(row.match.query) - {
        "id",
        "annotationName",
    }
    assert set(row.match.query) <= {p.partition("=")[0] for p in query} | required_arguments(
        row.name
    )


def test_offered_rows_agree_with_the_model() -> None:
    for name, match in offered().items():
        method, resource, query = model_match(name)
        assert (match.method, match.resource) == (method, resource), name
        required = query | required_arguments(name)
        assert set(match.query) == required, name


def test_every_header_of_the_offered_operations_is_handled_or_refused() -> None:
    handled = {
        *("cache-control", "content-disposition", "content-encoding", "content-language"),
        *("content-length", "content-md5", "content-type", "expires", "if-match", "range"),
        *("if-modified-since", "if-none-match", "if-unmodified-since"),
        *("x-amz-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-type"),
        *("x-amz-copy-source", "x-amz-copy-source-if-match", "x-amz-copy-source-range"),
        *("x-amz-copy-source-if-modified-since", "x-amz-copy-source-if-none-match"),
        *("x-amz-copy-source-if-unmodified-since", "x-amz-max-parts", "x-amz-metadata-directive"),
        *("x-amz-mp-object-size", "x-amz-object-attributes", "x-amz-optional-object-attributes"),
        *("x-amz-part-number-marker", "x-amz-request-payer", "x-amz-sdk-checksum-algorithm"),
        *("x-amz-tagging", "x-amz-tagging-directive", "x-amz-expected-bucket-owner"),
        *("x-amz-rename-source-if-match", "x-amz-rename-source-if-none-match"),
        *("x-amz-rename-source-if-modified-since", "x-amz-rename-source-if-unmodified-since"),
        *("x-amz-client-token", "x-amz-source-expected-bucket-owner"),
        *("x-amz-object-ownership", "x-amz-acl"),
        *("x-amz-grant-full-control", "x-amz-grant-read", "x-amz-grant-read-acp"),
        *("x-amz-grant-write", "x-amz-grant-write-acp"),
        # No destination of notifications is ever taken.
        "x-amz-skip-destination-validation",
        # The root of an account keeps the say over its policy in any case.
        "x-amz-confirm-remove-self-bucket-access",
    }
    for name in offered():
        shape = MODEL.operation_model(name).input_shape
        for member in shape.members.values() if shape else ():
            header = member.serialization.get("name", "").lower()
            if member.serialization.get("location") != "header":
                continue
            if header.startswith("x-amz-checksum-"):
                continue  # every algorithm is computed or refused by gateway.s3.checksums
            if "server-side-encryption" in header:
                continue  # taken or refused by gateway.domain.encryption
            assert header in handled or header in _ACCEPTED_VALUES, (name, header)
