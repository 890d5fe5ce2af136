"""Routing by specificity, what is known but not offered, and what must never fall through."""

from typing import Any

import pytest

from gateway.operation import AnyOperation, Match, Operation, Resource
from gateway.router import Router
from gateway.s3.errors import ErrorCode, S3Error


def operation(
    name: str, method: str, resource: Resource, *query: str, headers: tuple[str, ...] = ()
) -> AnyOperation:
    def never(*_: Any) -> Any:
        raise AssertionError

    return Operation(
        name=name,
        match=Match(method, resource, query, headers),
        permission="s3:X",
        decode=never,
        handle=never,
        encode=never,
    )


SERVICE, BUCKET, OBJECT = Resource.SERVICE, Resource.BUCKET, Resource.OBJECT
OPERATIONS = [
    operation("ListBuckets", "GET", SERVICE),
    operation("CreateBucket", "PUT", BUCKET),
    operation("DeleteBucket", "DELETE", BUCKET),
    operation("ListObjects", "GET", BUCKET),
    operation("ListObjectsV2", "GET", BUCKET, "list-type=2"),
    operation("ListObjectVersions", "GET", BUCKET, "versions"),
    operation("GetBucketAcl", "GET", BUCKET, "acl"),
    operation("DeleteObjects", "POST", BUCKET, "delete"),
    operation("PutObject", "PUT", OBJECT),
    operation("CopyObject", "PUT", OBJECT, headers=("x-amz-copy-source",)),
    operation("UploadPart", "PUT", OBJECT, "uploadId", "partNumber"),
    operation(
        "UploadPartCopy", "PUT", OBJECT, "uploadId", "partNumber", headers=("x-amz-copy-source",)
    ),
    operation("GetObject", "GET", OBJECT),
    operation("GetObjectAcl", "GET", OBJECT, "acl"),
    operation("ListParts", "GET", OBJECT, "uploadId"),
    operation("DeleteObject", "DELETE", OBJECT),
    operation("CreateMultipartUpload", "POST", OBJECT, "uploads"),
]
ROUTER = Router(OPERATIONS)
COPY = {"x-amz-copy-source": "b/k"}


def resolve(method: str, path: str, headers: dict[str, str] | None = None) -> str:
    where, _, raw = path.partition("?")
    bucket, _, key = where[1:].partition("/")
    query = {name: value for name, _, value in (p.partition("=") for p in raw.split("&") if p)}
    return ROUTER.resolve(method, bucket or None, key or None, query, headers or {}).name


def code_of(method: str, path: str, headers: dict[str, str] | None = None) -> ErrorCode:
    with pytest.raises(S3Error) as caught:
        resolve(method, path, headers)
    return caught.value.code


@pytest.mark.parametrize(
    ("method", "path", "headers", "name"),
    [
        ("GET", "/", None, "ListBuckets"),
        ("GET", "/?x-id=ListBuckets", None, "ListBuckets"),
        ("PUT", "/b", None, "CreateBucket"),
        ("GET", "/b", None, "ListObjects"),
        ("GET", "/b?prefix=&delimiter=%2F", None, "ListObjects"),
        ("GET", "/b?list-type=2&prefix=", None, "ListObjectsV2"),
        ("GET", "/b?list-type=1", None, "ListObjects"),
        ("GET", "/b?versions&prefix=", None, "ListObjectVersions"),
        ("POST", "/b?delete", None, "DeleteObjects"),
        ("PUT", "/b/k", None, "PutObject"),
        ("PUT", "/b/k?x-id=PutObject&X-Amz-Signature=", None, "PutObject"),
        ("PUT", "/b/k", COPY, "CopyObject"),
        ("PUT", "/b/k?partNumber=1&uploadId=x", None, "UploadPart"),
        ("PUT", "/b/k?partNumber=1&uploadId=x", COPY, "UploadPartCopy"),
        ("GET", "/b/k?versionId=null&acl", None, "GetObjectAcl"),
        ("GET", "/b/k?partNumber=1", None, "GetObject"),
        ("GET", "/b/k?uploadId=x", None, "ListParts"),
        ("DELETE", "/b/k?versionId=null", None, "DeleteObject"),
    ],
)
def test_routes(method: str, path: str, headers: dict[str, str] | None, name: str) -> None:
    assert resolve(method, path, headers) == name


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("PUT", "/b/k?retention", ErrorCode.NOT_IMPLEMENTED),
        ("PUT", "/b/k?acl", ErrorCode.NOT_IMPLEMENTED),
        ("DELETE", "/b?policy", ErrorCode.NOT_IMPLEMENTED),
        ("DELETE", "/b/k?annotation", ErrorCode.NOT_IMPLEMENTED),
        ("DELETE", "/b/k?something-new", ErrorCode.NOT_IMPLEMENTED),
        ("PUT", "/b?something-new", ErrorCode.NOT_IMPLEMENTED),
        ("POST", "/b?something-new", ErrorCode.NOT_IMPLEMENTED),
        ("POST", "/b/k?restore", ErrorCode.NOT_IMPLEMENTED),
        ("POST", "/b", ErrorCode.METHOD_NOT_ALLOWED),
        ("GET", "/b/k?torrent", ErrorCode.NOT_IMPLEMENTED),
        ("GET", "/b?analytics&id=x", ErrorCode.NOT_IMPLEMENTED),
        ("GET", "/b?acl&versions", ErrorCode.INVALID_ARGUMENT),
        ("GET", "/b?acl&metrics", ErrorCode.INVALID_ARGUMENT),
        ("PUT", "/b/k?uploadId=x", ErrorCode.INVALID_ARGUMENT),
        ("PUT", "/b/k?partNumber=1", ErrorCode.INVALID_ARGUMENT),
        ("PUT", "/b/k?versionId=x", ErrorCode.INVALID_ARGUMENT),
        ("POST", "/", ErrorCode.METHOD_NOT_ALLOWED),
        ("POST", "/b/k", ErrorCode.METHOD_NOT_ALLOWED),
        ("PATCH", "/b/k", ErrorCode.METHOD_NOT_ALLOWED),
    ],
)
def test_what_is_not_offered(method: str, path: str, code: ErrorCode) -> None:
    assert code_of(method, path) is code


def test_two_rows_with_the_same_requirements_are_refused() -> None:
    with pytest.raises(AssertionError):
        Router([*OPERATIONS, operation("Other", "GET", BUCKET, "acl")])
