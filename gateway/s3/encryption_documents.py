"""ServerSideEncryptionConfiguration as a value: the body of PutBucketEncryption."""

from typing import Final, NamedTuple

from lxml import etree

from gateway.s3.elements import boolean, children_of, malformed, name_of, parse, text_of, texts_of

_BY_DEFAULT: Final = "ApplyServerSideEncryptionByDefault"
_BUCKET_KEY: Final = "BucketKeyEnabled"
_BLOCKED_TYPES: Final = "BlockedEncryptionTypes"
_PARTS: Final = (_BY_DEFAULT, _BUCKET_KEY, _BLOCKED_TYPES)
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
    if len(rules) != 1 or name_of(rules[0]) != "Rule" or not len(rules[0]):
        raise malformed("a ServerSideEncryptionConfiguration holds one Rule that says something")
    parts = children_of(rules[0], _PARTS)
    rule = EncryptionRule()
    if _BY_DEFAULT in parts:
        algorithm, key_id = _by_default(parts[_BY_DEFAULT])
        rule = rule._replace(algorithm=algorithm, key_id=key_id)
    if _BUCKET_KEY in parts:
        rule = rule._replace(bucket_key=boolean(text_of(parts[_BUCKET_KEY])))
    if _BLOCKED_TYPES in parts:
        rule = rule._replace(blocked=_blocked(parts[_BLOCKED_TYPES]))
    return rule


def _by_default(parent: "etree._Element") -> tuple[str, str]:
    found = texts_of(parent, ("SSEAlgorithm", "KMSMasterKeyID"))
    algorithm = found.get("SSEAlgorithm", "").strip()
    if not algorithm:
        raise malformed(f"{_BY_DEFAULT} needs an SSEAlgorithm")
    return algorithm, found.get("KMSMasterKeyID", "").strip()


def _blocked(parent: "etree._Element") -> tuple[str, ...]:
    if any(name_of(child) != "EncryptionType" for child in parent):
        raise malformed(f"{_BLOCKED_TYPES} holds EncryptionType elements")
    types = {text_of(child).strip() for child in parent}
    if len(types) != 1 or not types <= _BLOCKED:
        raise malformed(f"EncryptionType is none of {', '.join(sorted(_BLOCKED))}")
    return tuple(types - {"NONE"})
