"""Headers that ask for what this gateway does not offer yet: refused, never ignored."""

from collections.abc import Mapping
from typing import Final

from gateway.s3.errors import not_implemented_header

_ACCEPTED_VALUES: Final[dict[str, frozenset[str]]] = {
    "x-amz-storage-class": frozenset({"STANDARD"}),
    "x-amz-bucket-object-lock-enabled": frozenset({"false", "False", "true", "True"}),
    "x-amz-bypass-governance-retention": frozenset({"false", "False", "true", "True"}),
    "x-amz-bucket-namespace": frozenset({"global"}),
    "x-amz-object-annotation-directive": frozenset({"COPY"}),
    "x-amz-transition-default-minimum-object-size": frozenset(
        {"all_storage_classes_128K", "varies_by_storage_class"}
    ),
    **dict.fromkeys(
        (
            "x-amz-bucket-object-lock-token",
            "x-amz-if-match-initiated-time",
            "x-amz-if-match-last-modified-time",
            "x-amz-if-match-size",
            "x-amz-mfa",
            "x-amz-object-lock-event-hold",
            "x-amz-object-lock-event-hold-duration-days",
            "x-amz-object-lock-event-hold-duration-years",
            "x-amz-object-lock-legal-hold",
            "x-amz-object-lock-mode",
            "x-amz-object-lock-retain-until-date",
            "x-amz-rename-source",
            "x-amz-website-redirect-location",
            "x-amz-write-offset-bytes",
        ),
        frozenset[str](),
    ),
}
"""Header names and the values of them that are accepted."""

_LOCK: Final = frozenset(
    {
        "x-amz-object-lock-legal-hold",
        "x-amz-object-lock-mode",
        "x-amz-object-lock-retain-until-date",
    }
)
_NEW_OBJECT: Final = _LOCK | {"x-amz-storage-class", "x-amz-website-redirect-location"}
_OFFERED: Final = {
    "DeleteObject": frozenset({"x-amz-if-match-last-modified-time", "x-amz-if-match-size"}),
    "PutObject": _NEW_OBJECT,
    "CopyObject": _NEW_OBJECT,
    "CreateMultipartUpload": _NEW_OBJECT,
    "PostObject": _NEW_OBJECT,
    "PutBucketLifecycleConfiguration": frozenset({"x-amz-transition-default-minimum-object-size"}),
    "RenameObject": frozenset({"x-amz-rename-source"}),
}
"""Headers of the table that some operation takes all the same."""


def refuse_unoffered(
    operation_name: str, headers: Mapping[str, str], query: Mapping[str, str]
) -> None:
    """NotImplemented for the first header that asks for a feature that is not offered.

    The same names in the query count as well: presigned URLs carry headers there.
    `x-amz-request-payer` is accepted: nobody is billed here.
    """
    if not _ACCEPTED_VALUES.keys().isdisjoint(headers):
        _refuse(operation_name, headers)
    if query and not _ACCEPTED_VALUES.keys().isdisjoint(query):
        _refuse("", query)  # what operations take they look for among the headers


def _refuse(operation_name: str, headers: Mapping[str, str]) -> None:
    for name, accepted in _ACCEPTED_VALUES.items():
        value = headers.get(name)
        if value is None or value in accepted or name in _OFFERED.get(operation_name, ()):
            continue
        raise not_implemented_header(name, operation=operation_name)
