"""ServerSideEncryptionConfiguration as a value: the body of PutBucketEncryption."""

from typing import Final, NamedTuple

from lxml import etree

from gateway.s3.documents import parse
from gateway.s3.errors import ErrorCode, S3Error

_BLOCKED: Final = frozenset({"NONE", "SSE-C"})


class EncryptionRule(NamedTuple):
    """The one rule as the client wrote it; "" and () for what it leaves out."""

    algorithm: str = ""
    key_id: str = ""
    bucket_key: bool = False
    blocked: tuple[str, ...] = ()


def parse_encryption(text: bytes) -> EncryptionRule:
    """Exactly one rule that says something. Raises MalformedXML."""
    rules = list(parse(text, "ServerSideEncryptionConfiguration"))
    if len(rules) != 1 or _name(rules[0]) != "Rule":
        raise S3Error(ErrorCode.MALFORMED_XML)
    rule = EncryptionRule()
    seen: set[str] = set()
    for child in rules[0]:
        name = _name(child)
        if name in seen:
            raise S3Error(ErrorCode.MALFORMED_XML)
        seen.add(name)
        if name == "ApplyServerSideEncryptionByDefault":
            algorithm, key_id = _by_default(child)
            rule = rule._replace(algorithm=algorithm, key_id=key_id)
        elif name == "BucketKeyEnabled":
            rule = rule._replace(bucket_key=_boolean(_text(child)))
        elif name == "BlockedEncryptionTypes":
            rule = rule._replace(blocked=_blocked(child))
        else:
            raise S3Error(ErrorCode.MALFORMED_XML)
    if not seen:
        raise S3Error(ErrorCode.MALFORMED_XML)
    return rule


def _by_default(parent: "etree._Element") -> tuple[str, str]:
    texts = [(_name(child), _text(child)) for child in parent]
    found = dict(texts)
    if len(found) != len(texts) or not found.keys() <= {"SSEAlgorithm", "KMSMasterKeyID"}:
        raise S3Error(ErrorCode.MALFORMED_XML)
    if not found.get("SSEAlgorithm"):
        raise S3Error(ErrorCode.MALFORMED_XML)
    return found["SSEAlgorithm"], found.get("KMSMasterKeyID", "")


def _blocked(parent: "etree._Element") -> tuple[str, ...]:
    if any(_name(child) != "EncryptionType" for child in parent):
        raise S3Error(ErrorCode.MALFORMED_XML)
    types = {_text(child) for child in parent}
    if not types or not types <= _BLOCKED or len(types) > 1:
        raise S3Error(ErrorCode.MALFORMED_XML)
    return tuple(types - {"NONE"})


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise S3Error(ErrorCode.MALFORMED_XML)
    return text.lower() == "true"


def _name(node: "etree._Element") -> str:
    tag: object = node.tag
    if not isinstance(tag, str):
        raise S3Error(ErrorCode.MALFORMED_XML)
    return tag.rpartition("}")[2]


def _text(leaf: "etree._Element") -> str:
    if len(leaf):
        raise S3Error(ErrorCode.MALFORMED_XML)
    return (leaf.text or "").strip()
