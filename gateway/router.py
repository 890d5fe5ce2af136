"""Which operation a request asks for: the registry's rows, ranked by how much they require."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from gateway.known import KNOWN, KnownOperation
from gateway.operation import AnyOperation, Match, Resource
from gateway.s3.errors import ErrorCode, S3Error

_PLAIN_ARGUMENTS: Final = frozenset(
    {
        *("bucket-region", "continuation-token", "delimiter", "encoding-type", "fetch-owner"),
        *("key-marker", "list-type", "marker", "max-buckets", "max-keys", "max-parts"),
        *("max-uploads", "part-number-marker", "partNumber", "prefix", "start-after"),
        *("upload-id-marker", "uploadId", "version-id-marker", "versionId", "x-id"),
        *("response-cache-control", "response-content-disposition", "response-content-encoding"),
        *("response-content-language", "response-content-type", "response-expires"),
        *("AWSAccessKeyId", "Expires", "Signature", "allow-unordered"),
    }
)
"""Arguments that qualify a request and may be empty; any other name without a value is taken for a
subresource, and an unknown subresource must not become an operation on the resource itself."""


class _Row(NamedTuple):
    rank: tuple[int, int]
    query: tuple[tuple[str, str | None], ...]
    headers: tuple[tuple[str, str | None], ...]
    name: str
    operation: AnyOperation | None
    """None: known to S3, not offered here."""

    def matches(self, query: Mapping[str, str], headers: Mapping[str, str]) -> bool:
        return _holds(self.query, query) and _holds(self.headers, headers)


class _Plain(NamedTuple):
    """What a request without arguments asks for, as nearly all do, if it has none of the headers."""

    row: _Row
    headers: frozenset[str]
    """Those that other rows require."""


def _holds(required: tuple[tuple[str, str | None], ...], present: Mapping[str, str]) -> bool:
    for name, value in required:
        found = present.get(name)
        if found is None or (value is not None and found != value):
            return False
    return True


def _row(match: Match, name: str, operation: AnyOperation | None) -> _Row:
    return _Row(
        rank=(len(match.query), len(match.headers)),
        query=tuple(_requirement(text) for text in match.query),
        headers=tuple(_requirement(text) for text in match.headers),
        name=name,
        operation=operation,
    )


def _requirement(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    return name, value if equals else None


class Router:
    """Built once from the registry; refuses two rows with the same requirements."""

    def __init__(
        self, operations: Iterable[AnyOperation], known: Iterable[KnownOperation] = KNOWN
    ) -> None:
        groups: dict[tuple[str, Resource], list[_Row]] = {}
        seen: dict[tuple[str, Resource, frozenset[str], frozenset[str]], str] = {}
        rows = [(operation.match, operation.name, operation) for operation in operations]
        for match, name, operation in (*rows, *((row.match, row.name, None) for row in known)):
            identity = (
                match.method,
                match.resource,
                frozenset(match.query),
                frozenset(match.headers),
            )
            other = seen.setdefault(identity, name)
            assert other == name, f"{other} and {name} require the same"
            groups.setdefault((match.method, match.resource), []).append(
                _row(match, name, operation)
            )
        for group in groups.values():
            group.sort(key=lambda row: row.rank, reverse=True)
        self._groups = {key: tuple(group) for key, group in groups.items()}
        self._plain = {
            key: _Plain(group[-1], frozenset(name for row in group for name, _ in row.headers))
            for key, group in groups.items()
            if group[-1].rank == (0, 0)
        }

    def resolve(
        self,
        method: str,
        bucket: str | None,
        key: str | None,
        query: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> AnyOperation:
        """The operation of a request.

        Raises NotImplemented, MethodNotAllowed, InvalidArgument (two subresources at once).
        """
        if key is not None:
            resource = Resource.OBJECT
        else:
            resource = Resource.SERVICE if bucket is None else Resource.BUCKET
        plain = None if query else self._plain.get((method, resource))
        if plain is not None and plain.headers.isdisjoint(headers):
            best = plain.row
        else:
            best = self._best(method, resource, query, headers)
        if query and not best.query:
            _refuse_unknown_subresources(query)
            if method == "PUT" and resource is Resource.OBJECT:
                _refuse_stray_arguments(query)
        if best.operation is None:
            raise _not_offered(best.name)
        return best.operation

    def _best(
        self, method: str, resource: Resource, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> _Row:
        """The row that requires most of what the request has."""
        best: _Row | None = None
        for row in self._groups.get((method, resource), ()):
            if best is not None and row.rank < best.rank:
                break
            if row.matches(query, headers):
                if best is not None:
                    raise _conflict(best, row)
                best = row
        if best is None:
            raise _no_row(method, resource, query)
        return best


def _conflict(first: _Row, second: _Row) -> S3Error:
    names = sorted({name for name, _ in first.query} | {name for name, _ in second.query})
    return S3Error(
        ErrorCode.INVALID_ARGUMENT,
        "Conflicting query string parameters: " + ", ".join(names),
        details={"ArgumentName": "ResourceType", "ArgumentValue": names[0] if names else ""},
    )


def _no_row(method: str, resource: Resource, query: Mapping[str, str]) -> S3Error:
    if any(value == "" and name not in _PLAIN_ARGUMENTS for name, value in query.items()):
        return _not_offered(next(iter(query)))
    return S3Error(
        ErrorCode.METHOD_NOT_ALLOWED,
        details={"Method": method, "ResourceType": resource.name},
    )


def _refuse_unknown_subresources(query: Mapping[str, str]) -> None:
    for name, value in query.items():
        if value == "" and name not in _PLAIN_ARGUMENTS and not name.startswith("X-Amz-"):
            raise _not_offered(name)


def _refuse_stray_arguments(query: Mapping[str, str]) -> None:
    """Half an UploadPart, or a write to a version, must not become a write of the object."""
    for name in ("uploadId", "partNumber", "versionId"):
        if name in query:
            raise S3Error(
                ErrorCode.INVALID_ARGUMENT,
                f"This operation does not accept the query parameter {name} alone.",
                details={"ArgumentName": name, "ArgumentValue": query[name]},
            )


def _not_offered(what: str) -> S3Error:
    return S3Error(
        ErrorCode.NOT_IMPLEMENTED,
        f"{what} is not implemented by this server.",
    )
