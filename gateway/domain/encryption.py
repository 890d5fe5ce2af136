"""What a request asks of server-side encryption, and what it may not ask. Pure.

Sources: S3 User Guide, "Using server-side encryption with customer-provided keys (SSE-C)" and
"Specifying server-side encryption with AWS KMS (SSE-KMS)"; S3 API Reference, PutObject, UploadPart
and GetObject. Messages are those that S3 answers with.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

ENCRYPTION: Final = "x-amz-server-side-encryption"
KEY_ID: Final = "x-amz-server-side-encryption-aws-kms-key-id"
CONTEXT: Final = "x-amz-server-side-encryption-context"
BUCKET_KEY: Final = "x-amz-server-side-encryption-bucket-key-enabled"
CUSTOMER_ALGORITHM: Final = "x-amz-server-side-encryption-customer-algorithm"
CUSTOMER_KEY: Final = "x-amz-server-side-encryption-customer-key"
CUSTOMER_KEY_MD5: Final = "x-amz-server-side-encryption-customer-key-md5"
SOURCE: Final = "x-amz-copy-source-"
"""In place of `x-amz-`: the customer's key of a copy's source."""

_CUSTOMER: Final = (CUSTOMER_ALGORITHM, CUSTOMER_KEY, CUSTOMER_KEY_MD5)
_MANAGED: Final = (ENCRYPTION, KEY_ID, CONTEXT, BUCKET_KEY)
HEADERS: Final = frozenset(
    {*_MANAGED, *_CUSTOMER, *(name.replace("x-amz-", SOURCE, 1) for name in _CUSTOMER)}
)

AES256: Final = "AES256"
KMS: Final = "aws:kms"
_KMS_DUAL: Final = "aws:kms:dsse"
DEFAULT_KMS_KEY: Final = "aws/s3"
"""The master key of requests that ask for aws:kms and name none, as at AWS. Operators make it."""
KEY_SIZE_BYTES: Final = 32
CONTEXT_SIZE_BYTES_MAX: Final = 8192
_KEY_ARN: Final = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]*:[0-9]*:(?:key/)?(.+)")
_KEY_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9/_.:@+=,-]{0,127}")


class Kind(Enum):
    """Forms of encryption, as `EncryptionEnvelope.kind` names them."""

    SSE_S3 = "AES256"
    SSE_KMS = "aws:kms"
    SSE_C = "SSE-C"
    AT_REST = "at-rest"
    """Nobody asked: the store encrypts everything. Answers do not tell."""


class Refusal(Enum):
    """What S3 calls it when encryption is refused."""

    INVALID_ARGUMENT = "InvalidArgument"
    INVALID_REQUEST = "InvalidRequest"
    INVALID_ALGORITHM = "InvalidEncryptionAlgorithmError"
    ACCESS_DENIED = "AccessDenied"
    NOT_OFFERED = "NotImplemented"
    MALFORMED_XML = "MalformedXML"


class EncryptionRefused(Exception):
    """A request's encryption parameters are malformed, contradict each other or do not fit."""

    def __init__(self, refusal: Refusal, message: str, argument: str = "", value: str = "") -> None:
        super().__init__(message)
        self.refusal, self.message = refusal, message
        self.argument, self.value = argument, value


@dataclass(frozen=True, slots=True)
class CustomerKey:
    """A key that the client brings with each request; never stored, never shown."""

    key: bytes
    md5: str

    def __repr__(self) -> str:
        return f"CustomerKey(md5={self.md5!r})"


@dataclass(frozen=True, slots=True)
class Wanted:
    """How an object is to be encrypted. `context` is canonical JSON, "" for none."""

    kind: Kind
    key_id: str = ""
    context: str = ""
    bucket_key: bool = False
    customer: CustomerKey | None = None


@dataclass(frozen=True, slots=True)
class Default:
    """What a bucket's rule says of requests that say nothing (`algorithm` "" for nothing), and the
    forms that it blocks."""

    algorithm: str
    key_id: str = ""
    bucket_key: bool = False
    blocked: tuple[str, ...] = ()


def wanted_encryption(headers: Mapping[str, str], default: Default | None) -> Wanted | None:
    """What a write asks for, by its headers or else by its bucket's rule. Raises EncryptionRefused."""
    customer = customer_key(headers)
    managed = headers.get(ENCRYPTION)
    if customer is not None:
        if managed is not None:
            raise _argument(
                ENCRYPTION,
                managed,
                "Server Side Encryption with Customer provided key is incompatible with the "
                "encryption method specified",
            )
        _demand_no_kms(headers)
        if default is not None and "SSE-C" in default.blocked:
            raise EncryptionRefused(
                Refusal.ACCESS_DENIED,
                "Requests specifying Server Side Encryption with Customer provided keys are "
                "blocked by the bucket's default encryption configuration.",
            )
        return Wanted(Kind.SSE_C, customer=customer)
    if managed is None:
        _demand_no_kms(headers)
        return None if default is None else _by_default(default, headers)
    if managed == AES256:
        _demand_no_kms(headers)
        return Wanted(Kind.SSE_S3)
    if managed == _KMS_DUAL:
        raise EncryptionRefused(
            Refusal.NOT_OFFERED, "Dual-layer encryption (aws:kms:dsse) is not offered.", ENCRYPTION
        )
    if managed != KMS:
        raise _argument(ENCRYPTION, managed, "The encryption method specified is not supported")
    bucket_key = _bucket_key(headers)
    if bucket_key is None:
        bucket_key = default is not None and default.algorithm == KMS and default.bucket_key
    key_id = headers.get(KEY_ID, "")
    if not key_id and default is not None and default.algorithm == KMS:
        key_id = default.key_id
    return Wanted(Kind.SSE_KMS, key_named(key_id), _context(headers), bucket_key)


def _by_default(default: Default, headers: Mapping[str, str]) -> Wanted | None:
    if default.algorithm == KMS:
        asked = _bucket_key(headers)
        bucket_key = default.bucket_key if asked is None else asked
        return Wanted(Kind.SSE_KMS, key_named(default.key_id), bucket_key=bucket_key)
    return Wanted(Kind.SSE_S3) if default.algorithm == AES256 else None


def default_rule(
    algorithm: str, key_id: str, bucket_key: bool, blocked: tuple[str, ...]
) -> Default:
    """A bucket's rule from what a client wrote, "" for what it left out. Raises EncryptionRefused."""
    if algorithm == _KMS_DUAL:
        raise EncryptionRefused(
            Refusal.NOT_OFFERED, "Dual-layer encryption (aws:kms:dsse) is not offered."
        )
    if algorithm not in ("", AES256, KMS):
        raise EncryptionRefused(Refusal.MALFORMED_XML, "The SSEAlgorithm is not supported.")
    if key_id and algorithm != KMS:
        raise _argument(
            "KMSMasterKeyID",
            key_id,
            "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or "
            "aws:kms:dsse",
        )
    if key_id:
        key_named(key_id)
    return Default(algorithm, key_id, bucket_key, blocked)


def key_named(text: str) -> str:
    """The id of a master key given as such or as an ARN; the default key's for "". Raises
    EncryptionRefused."""
    if not text:
        return DEFAULT_KMS_KEY
    found = _KEY_ARN.fullmatch(text)
    key_id = text if found is None else found[1]
    if _KEY_ID.fullmatch(key_id) is None:
        raise _argument(KEY_ID, text, "The key identifier is malformed.")
    return key_id


def customer_key(headers: Mapping[str, str], prefix: str = "x-amz-") -> CustomerKey | None:
    """The customer's key of a request, or (`prefix` SOURCE) of a copy's source; None without one.

    Raises EncryptionRefused: InvalidArgument for what is missing or malformed.
    """
    names = [name.replace("x-amz-", prefix, 1) for name in _CUSTOMER]
    algorithm, key_text, md5 = (headers.get(name) for name in names)
    if algorithm is None and key_text is None and md5 is None:
        return None
    subject = "Requests specifying Server Side Encryption with Customer provided keys must provide"
    if algorithm is None:
        raise _argument(names[0], "null", f"{subject} a valid encryption algorithm.")
    if algorithm != AES256:
        raise EncryptionRefused(
            Refusal.INVALID_ALGORITHM,
            "The Encryption request you specified is not valid. Supported value: AES256.",
            names[0],
            algorithm,
        )
    if key_text is None:
        raise _argument(names[1], "null", f"{subject} an appropriate secret key.")
    if md5 is None:
        raise _argument(names[2], "null", f"{subject} the client calculated MD5 of the secret key.")
    # Answers never show a key, not even a malformed one.
    key = _decoded(key_text)
    if key is None or len(key) != KEY_SIZE_BYTES:
        raise _argument(names[1], "", "The secret key was invalid for the specified algorithm.")
    digest = hashlib.md5(key, usedforsecurity=False).digest()
    announced = _decoded(md5)
    if announced is None or not hmac.compare_digest(announced, digest):
        raise _argument(
            names[2],
            md5,
            "The calculated MD5 hash of the key did not match the hash that was provided.",
        )
    return CustomerKey(key, base64.b64encode(digest).decode())


def demand_confidential(
    headers: Mapping[str, str], *, secure: bool, remote: str, over_http: bool
) -> None:
    """InvalidRequest when a customer's key came over a wire that others may read.

    Allowed are TLS, clients on this host (their bytes pass no wire), and everything where an
    operator says so (`over_http`: a proxy in front ends TLS).
    """
    if (
        secure
        or over_http
        or not any("-customer-" in name for name in headers)
        or _is_local(remote)
    ):
        return
    raise EncryptionRefused(
        Refusal.INVALID_REQUEST,
        "Requests specifying Server Side Encryption with Customer provided keys must be made over "
        "a secure connection.",
    )


def _is_local(remote: str) -> bool:
    if not remote:
        return True  # a Unix socket
    try:
        address = ipaddress.ip_address(remote.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def refuse_on_read(headers: Mapping[str, str]) -> None:
    """Reads name no encryption method: the object has its own. Raises EncryptionRefused."""
    for name in _MANAGED:
        if name in headers:
            raise _argument(
                name, headers[name], f"{name} header is not supported for this operation."
            )


def demand_fitting_key(kind: str | None, key_md5: str, customer: CustomerKey | None) -> None:
    """A read must bring the key of an SSE-C object, and none to any other. `kind` None: the object
    is not encrypted. Raises EncryptionRefused."""
    if kind != Kind.SSE_C.value:
        if customer is None:
            return
        raise EncryptionRefused(
            Refusal.INVALID_REQUEST,
            "The encryption parameters are not applicable to this object.",
        )
    if customer is None:
        raise EncryptionRefused(
            Refusal.INVALID_REQUEST,
            "The object was stored using a form of Server Side Encryption. The correct parameters "
            "must be provided to retrieve the object.",
        )
    if not hmac.compare_digest(customer.md5, key_md5):
        raise wrong_key()


def wrong_key() -> EncryptionRefused:
    """The customer's key is not the one that the object was stored with."""
    return EncryptionRefused(
        Refusal.ACCESS_DENIED,
        "Requests specifying Server Side Encryption with Customer provided keys must provide the "
        "correct secret key.",
    )


def demand_part_key(kind: str, key_md5: str, customer: CustomerKey | None) -> None:
    """A part must bring the key that its upload was begun with, and none to any other upload.
    `kind` "" of one that is not encrypted."""
    if kind != Kind.SSE_C.value:
        if customer is None:
            return
        raise EncryptionRefused(
            Refusal.INVALID_REQUEST,
            "The multipart upload initiate did not request encryption. Please resend the request "
            "without sending encryption parameters.",
        )
    if customer is None:
        raise EncryptionRefused(
            Refusal.INVALID_REQUEST,
            "The multipart upload initiate requested encryption. Subsequent part requests must "
            "include the appropriate encryption parameters.",
        )
    if not hmac.compare_digest(customer.md5, key_md5):
        raise EncryptionRefused(
            Refusal.INVALID_REQUEST,
            "The provided encryption parameters did not match the ones used originally.",
        )


def _demand_no_kms(headers: Mapping[str, str]) -> None:
    """What only SSE-KMS knows must not come without it. A bucket key flag alone may: it then
    qualifies the bucket's rule."""
    for name in (KEY_ID, CONTEXT):
        if name in headers:
            raise _argument(
                name,
                headers[name],
                "Server Side Encryption with AWS KMS managed key requires HTTP header "
                "x-amz-server-side-encryption : aws:kms",
            )


def _bucket_key(headers: Mapping[str, str]) -> bool | None:
    text = headers.get(BUCKET_KEY)
    if text is None:
        return None
    if text.lower() not in ("true", "false"):
        raise _argument(BUCKET_KEY, text, "The bucket key flag must be true or false.")
    return text.lower() == "true"


def _context(headers: Mapping[str, str]) -> str:
    text = headers.get(CONTEXT)
    if text is None:
        return ""
    decoded = _decoded(text) if len(text) <= CONTEXT_SIZE_BYTES_MAX else None
    try:
        context = json.loads(decoded.decode()) if decoded is not None else None
    except (ValueError, RecursionError):
        context = None
    if not isinstance(context, dict) or not all(isinstance(v, str) for v in context.values()):
        raise _argument(
            CONTEXT,
            text,
            f"The header '{CONTEXT}' shall be Base64-encoded UTF-8 string holding JSON which "
            "represents a string-string map",
        )
    return json.dumps(context, sort_keys=True, separators=(",", ":")) if context else ""


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None


def _argument(name: str, value: str, message: str) -> EncryptionRefused:
    return EncryptionRefused(Refusal.INVALID_ARGUMENT, message, name, value)
