"""S3's XML request bodies as values: Delete, CompleteMultipartUpload, CreateBucketConfiguration,
VersioningConfiguration, Tagging. Everything off raises MalformedXML.
"""

from dataclasses import dataclass
from typing import Final

from lxml import etree

from gateway.s3.checksums import ALGORITHM_BY_ELEMENT
from gateway.s3.elements import boolean, malformed, name_of, parse, text_of, texts_of

DELETE_DOCUMENT_LIMIT_BYTES: Final = 2 * 1024 * 1024
"""Bound of a DeleteObjects document: 1,000 keys of 1,024 bytes, escaped, with their tags."""
COMPLETE_DOCUMENT_LIMIT_BYTES: Final = 4 * 1024 * 1024
"""Bound of a CompleteMultipartUpload document: 10,000 parts with a checksum each."""
SETTINGS_DOCUMENT_LIMIT_BYTES: Final = 64 * 1024
"""Bound of documents that carry settings (CreateBucketConfiguration)."""

TAGGING_DOCUMENT_LIMIT_BYTES: Final = 256 * 1024
"""Bound of a Tagging document: 50 tags of 384 characters, each of them perhaps a reference."""


@dataclass(frozen=True, slots=True)
class ObjectIdentifier:
    """One entry of a DeleteObjects document. The conditions are as the client wrote them."""

    key: str
    version_id: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    size: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteDocument:
    """The body of DeleteObjects: 1 to 1,000 keys."""

    objects: tuple[ObjectIdentifier, ...]
    quiet: bool


@dataclass(frozen=True, slots=True)
class CompletedPart:
    """One entry of a CompleteMultipartUpload document.

    `checksums` maps element names (`ChecksumCRC32`, …) to base64 text.
    """

    part_number: int
    etag: str
    checksums: dict[str, str]


@dataclass(frozen=True, slots=True)
class BucketConfiguration:
    """The body of CreateBucket; `unoffered` names elements that ask for other features. `tags` are
    as they came, unchecked."""

    location_constraint: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    unoffered: tuple[str, ...] = ()


_MAX_DELETED_KEYS: Final = 1000
_MAX_PARTS: Final = 10_000


def parse_delete(text: bytes) -> DeleteDocument:
    """DeleteObjects' body. Raises MalformedXML: no keys, more than 1,000, unknown elements."""
    objects: list[ObjectIdentifier] = []
    quiet = False
    for child in parse(text, "Delete"):
        name = name_of(child)
        if name == "Object":
            fields = texts_of(child, _OBJECT_FIELDS)
            if "Key" not in fields or not fields["Key"]:
                raise malformed("an Object without a Key")
            if len(objects) == _MAX_DELETED_KEYS:
                raise malformed("more than 1,000 keys")
            objects.append(
                ObjectIdentifier(
                    key=fields["Key"],
                    version_id=fields.get("VersionId"),
                    etag=fields.get("ETag"),
                    last_modified=fields.get("LastModifiedTime"),
                    size=fields.get("Size"),
                )
            )
        elif name == "Quiet":
            quiet = _is_quiet(text_of(child).strip())
        else:
            raise malformed(f"unknown element {name}")
    if not objects:
        raise malformed("no keys")
    return DeleteDocument(objects=tuple(objects), quiet=quiet)


def _is_quiet(text: str) -> bool:
    """Some clients write the numbers that XML Schema has for a boolean."""
    return text == "1" or (text != "0" and boolean(text))


_OBJECT_FIELDS: Final = frozenset({"Key", "VersionId", "ETag", "LastModifiedTime", "Size"})
_TAG_FIELDS: Final = frozenset({"Key", "Value"})
_VERSIONING_VALUES: Final = {
    "Status": ("Enabled", "Suspended"),
    "MfaDelete": ("Enabled", "Disabled"),
}
_PART_FIELDS: Final = ALGORITHM_BY_ELEMENT.keys() | {"PartNumber", "ETag"}


def parse_complete(text: bytes) -> tuple[CompletedPart, ...]:
    """CompleteMultipartUpload's body, in the client's order. Raises MalformedXML."""
    parts: list[CompletedPart] = []
    for child in parse(text, "CompleteMultipartUpload"):
        if name_of(child) != "Part":
            raise malformed("only Part elements are allowed")
        fields = texts_of(child, _PART_FIELDS)
        number = fields.get("PartNumber", "").strip()
        etag = fields.get("ETag")
        if etag is None or not number.isascii() or not number.isdigit() or len(number) > 9:
            raise malformed("a Part needs a PartNumber and an ETag")
        if len(parts) == _MAX_PARTS:
            raise malformed("more than 10,000 parts")
        parts.append(
            CompletedPart(
                part_number=int(number),
                etag=etag.strip(),
                checksums={
                    name: value.strip()
                    for name, value in fields.items()
                    if name in ALGORITHM_BY_ELEMENT
                },
            )
        )
    if not parts:
        raise malformed("no parts")
    return tuple(parts)


def parse_create_bucket(text: bytes) -> BucketConfiguration:
    """CreateBucket's body, which may be empty. Raises MalformedXML."""
    if not text.strip():
        return BucketConfiguration()
    location: str | None = None
    tags: tuple[tuple[str, str], ...] | None = None
    unoffered: list[str] = []
    for child in parse(text, "CreateBucketConfiguration"):
        name = name_of(child)
        if name == "LocationConstraint":
            if location is not None:
                raise malformed("LocationConstraint given twice")
            location = text_of(child).strip()
        elif name == "Tags":
            if tags is not None:
                raise malformed("Tags given twice")
            tags = _tags(child)
        elif name in ("Location", "Bucket"):
            unoffered.append(name)
        else:
            raise malformed(f"unknown element {name}")
    return BucketConfiguration(
        location_constraint=location, tags=tags or (), unoffered=tuple(unoffered)
    )


def parse_versioning(text: bytes) -> dict[str, str]:
    """The settings of a VersioningConfiguration: Status, MfaDelete. Raises MalformedXML."""
    fields = texts_of(parse(text, "VersioningConfiguration"), frozenset(_VERSIONING_VALUES))
    for name, value in fields.items():
        if value not in _VERSIONING_VALUES[name]:
            raise malformed(f"{name} is none of {', '.join(_VERSIONING_VALUES[name])}")
    return fields


def parse_tagging(text: bytes) -> tuple[tuple[str, str], ...]:
    """The key and value of each tag of a Tagging document; one without a TagSet has none, as S3 has
    it. Raises MalformedXML."""
    sets = list(parse(text, "Tagging"))
    if not sets:
        return ()
    if len(sets) != 1 or name_of(sets[0]) != "TagSet":
        raise malformed("a Tagging holds one TagSet")
    return _tags(sets[0])


def _tags(parent: "etree._Element") -> tuple[tuple[str, str], ...]:
    tags: list[tuple[str, str]] = []
    for child in parent:
        if name_of(child) != "Tag":
            raise malformed("only Tag elements are allowed")
        fields = texts_of(child, _TAG_FIELDS)
        if len(fields) != len(_TAG_FIELDS):
            raise malformed("a Tag needs a Key and a Value")
        tags.append((fields["Key"], fields["Value"]))
    return tuple(tags)
