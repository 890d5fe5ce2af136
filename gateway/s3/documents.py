"""S3's XML request bodies as values: bounded, entity-free reading of Delete,
CompleteMultipartUpload and CreateBucketConfiguration. Everything off raises MalformedXML.
"""

from dataclasses import dataclass
from typing import Final

from lxml import etree

from gateway.s3.errors import ErrorCode, S3Error

DELETE_DOCUMENT_LIMIT_BYTES: Final = 2 * 1024 * 1024
"""Bound of a DeleteObjects document: 1,000 keys of 1,024 bytes, escaped, with their tags."""
COMPLETE_DOCUMENT_LIMIT_BYTES: Final = 4 * 1024 * 1024
"""Bound of a CompleteMultipartUpload document: 10,000 parts with a checksum each."""
SETTINGS_DOCUMENT_LIMIT_BYTES: Final = 64 * 1024
"""Bound of documents that carry settings (CreateBucketConfiguration)."""

TAGGING_DOCUMENT_LIMIT_BYTES: Final = 256 * 1024
"""Bound of a Tagging document: 50 tags of 384 characters, each of them perhaps a reference."""

MAX_ELEMENTS: Final = 100_000


def malformed(reason: str) -> S3Error:
    """MalformedXML, with what is wrong for whoever looks at the answer."""
    return S3Error(ErrorCode.MALFORMED_XML, details={"Reason": reason})


def parse(text: bytes, root: str) -> "etree._Element":
    """The document's root element. Raises MalformedXML.

    AWS accepts its own namespace, another one, or none: compare names with `_local_name`. Depth is
    bounded by libxml2 (256) and by the readers below, which refuse nested leaves.
    """
    if text.count(b"<") > 2 * MAX_ELEMENTS:
        raise malformed("the document holds too many elements")
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        collect_ids=False,
    )
    try:
        tree = etree.fromstring(text, parser)
    except (etree.XMLSyntaxError, ValueError, LookupError) as error:
        raise malformed(f"not well-formed: {error}") from error
    if tree.getroottree().docinfo.internalDTD is not None:
        raise malformed("document type declarations are not allowed")
    if _local_name(tree) != root:
        raise malformed(f"the document is not a {root}")
    return tree


def _local_name(node: "etree._Element") -> str:
    tag: object = node.tag
    if not isinstance(tag, str):  # lxml gives entities, comments and instructions a function
        raise malformed("only elements are allowed")
    return tag.rpartition("}")[2]


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
    """The body of CreateBucket; `unoffered` names elements that ask for other features."""

    location_constraint: str | None = None
    unoffered: tuple[str, ...] = ()


PART_CHECKSUM_ELEMENTS: Final = frozenset(
    {
        "ChecksumCRC32",
        "ChecksumCRC32C",
        "ChecksumCRC64NVME",
        "ChecksumSHA1",
        "ChecksumSHA256",
    }
)
_MAX_DELETED_KEYS: Final = 1000
_MAX_PARTS: Final = 10_000


def parse_delete(text: bytes) -> DeleteDocument:
    """DeleteObjects' body. Raises MalformedXML: no keys, more than 1,000, unknown elements."""
    objects: list[ObjectIdentifier] = []
    quiet = False
    for child in parse(text, "Delete"):
        name = _local_name(child)
        if name == "Object":
            fields = child_texts(child, _OBJECT_FIELDS)
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
            quiet = _boolean(_text(child))
        else:
            raise malformed(f"unknown element {name}")
    if not objects:
        raise malformed("no keys")
    return DeleteDocument(objects=tuple(objects), quiet=quiet)


_OBJECT_FIELDS: Final = frozenset({"Key", "VersionId", "ETag", "LastModifiedTime", "Size"})
_TAG_FIELDS: Final = frozenset({"Key", "Value"})
_VERSIONING_VALUES: Final = {
    "Status": ("Enabled", "Suspended"),
    "MfaDelete": ("Enabled", "Disabled"),
}
_PART_FIELDS: Final = PART_CHECKSUM_ELEMENTS | {"PartNumber", "ETag"}


def parse_complete(text: bytes) -> tuple[CompletedPart, ...]:
    """CompleteMultipartUpload's body, in the client's order. Raises MalformedXML."""
    parts: list[CompletedPart] = []
    for child in parse(text, "CompleteMultipartUpload"):
        if _local_name(child) != "Part":
            raise malformed("only Part elements are allowed")
        fields = child_texts(child, _PART_FIELDS)
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
                    if name in PART_CHECKSUM_ELEMENTS
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
    unoffered: list[str] = []
    for child in parse(text, "CreateBucketConfiguration"):
        name = _local_name(child)
        if name == "LocationConstraint":
            if location is not None:
                raise malformed("LocationConstraint given twice")
            location = _text(child).strip()
        elif name in ("Location", "Bucket", "Tags"):
            unoffered.append(name)
        else:
            raise malformed(f"unknown element {name}")
    return BucketConfiguration(location_constraint=location, unoffered=tuple(unoffered))


def parse_versioning(text: bytes) -> dict[str, str]:
    """The settings of a VersioningConfiguration: Status, MfaDelete. Raises MalformedXML."""
    fields = child_texts(parse(text, "VersioningConfiguration"), frozenset(_VERSIONING_VALUES))
    for name, value in fields.items():
        if value not in _VERSIONING_VALUES[name]:
            raise malformed(f"{name} is none of {', '.join(_VERSIONING_VALUES[name])}")
    return fields


def parse_tagging(text: bytes) -> tuple[tuple[str, str], ...]:
    """The key and value of each tag of a Tagging document. Raises MalformedXML."""
    sets = list(parse(text, "Tagging"))
    if len(sets) != 1 or _local_name(sets[0]) != "TagSet":
        raise malformed("a Tagging holds one TagSet")
    tags: list[tuple[str, str]] = []
    for child in sets[0]:
        if _local_name(child) != "Tag":
            raise malformed("only Tag elements are allowed")
        fields = child_texts(child, _TAG_FIELDS)
        if len(fields) != len(_TAG_FIELDS):
            raise malformed("a Tag needs a Key and a Value")
        tags.append((fields["Key"], fields["Value"]))
    return tuple(tags)


def child_texts(parent: "etree._Element", known: frozenset[str]) -> dict[str, str]:
    """The children's texts by name; each child at most once, none unknown, none nested."""
    fields: dict[str, str] = {}
    for child in parent:
        name = _local_name(child)
        if name not in known or name in fields:
            raise malformed(f"unexpected element {name}")
        fields[name] = _text(child)
    return fields


def children_named(parent: "etree._Element") -> dict[str, "etree._Element"]:
    """The children by name; each at most once."""
    found: dict[str, etree._Element] = {}
    for child in parent:
        name = _local_name(child)
        if name in found:
            raise malformed(f"{name} given twice")
        found[name] = child
    return found


def _text(leaf: "etree._Element") -> str:
    if len(leaf):
        raise malformed("an element must hold text only")
    return leaf.text or ""


def _boolean(text: str) -> bool:
    value = text.strip().lower()
    if value not in ("true", "false", "1", "0"):
        raise malformed("not a boolean")
    return value in ("true", "1")
