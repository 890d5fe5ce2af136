"""What requests may ask of encryption: every malformed or contradictory combination, in S3's words."""

import base64
import hashlib

import pytest

from gateway.domain.encryption import (
    BUCKET_KEY,
    CONTEXT,
    CUSTOMER_ALGORITHM,
    CUSTOMER_KEY,
    CUSTOMER_KEY_MD5,
    ENCRYPTION,
    KEY_ID,
    SOURCE,
    CustomerKey,
    Default,
    EncryptionRefused,
    Kind,
    Refusal,
    Wanted,
    customer_key,
    default_rule,
    demand_confidential,
    demand_fitting_key,
    demand_part_key,
    key_named,
    refuse_on_read,
    wanted_encryption,
)

KEY = b"k" * 32
MD5 = base64.b64encode(hashlib.md5(KEY).digest()).decode()
CUSTOMER = {
    CUSTOMER_ALGORITHM: "AES256",
    CUSTOMER_KEY: base64.b64encode(KEY).decode(),
    CUSTOMER_KEY_MD5: MD5,
}
BROUGHT = CustomerKey(KEY, MD5)
MAP = base64.b64encode(b'{"b": "2", "a": "1"}').decode()
KMS_RULE = Default("aws:kms", "ruled", bucket_key=True)


@pytest.mark.parametrize(
    ("headers", "default", "wanted"),
    [
        ({}, None, None),
        ({}, Default(""), None),
        ({}, Default("AES256"), Wanted(Kind.SSE_S3)),
        ({}, KMS_RULE, Wanted(Kind.SSE_KMS, "ruled", bucket_key=True)),
        ({BUCKET_KEY: "false"}, KMS_RULE, Wanted(Kind.SSE_KMS, "ruled")),
        ({}, Default("aws:kms"), Wanted(Kind.SSE_KMS, "aws/s3")),
        ({ENCRYPTION: "AES256"}, None, Wanted(Kind.SSE_S3)),
        ({ENCRYPTION: "AES256"}, KMS_RULE, Wanted(Kind.SSE_S3)),
        ({ENCRYPTION: "aws:kms"}, None, Wanted(Kind.SSE_KMS, "aws/s3")),
        ({ENCRYPTION: "aws:kms"}, KMS_RULE, Wanted(Kind.SSE_KMS, "ruled", bucket_key=True)),
        ({ENCRYPTION: "aws:kms", KEY_ID: "own"}, None, Wanted(Kind.SSE_KMS, "own")),
        (
            {ENCRYPTION: "aws:kms", KEY_ID: "own", CONTEXT: MAP, BUCKET_KEY: "True"},
            None,
            Wanted(Kind.SSE_KMS, "own", '{"a":"1","b":"2"}', bucket_key=True),
        ),
        (CUSTOMER, KMS_RULE, Wanted(Kind.SSE_C, customer=BROUGHT)),
    ],
)
def test_what_a_write_asks_for(
    headers: dict[str, str], default: Default | None, wanted: Wanted | None
) -> None:
    assert wanted_encryption(headers, default) == wanted


def but(**changes: str | None) -> dict[str, str]:
    """The customer's headers with one changed or (None) left out."""
    names = {"algorithm": CUSTOMER_ALGORITHM, "key": CUSTOMER_KEY, "md5": CUSTOMER_KEY_MD5}
    changed = CUSTOMER | {names[name]: value for name, value in changes.items()}
    return {name: value for name, value in changed.items() if value is not None}


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("headers", "refusal", "argument"),
    [
        ({ENCRYPTION: "aes256"}, Refusal.INVALID_ARGUMENT, ENCRYPTION),
        ({ENCRYPTION: ""}, Refusal.INVALID_ARGUMENT, ENCRYPTION),
        ({ENCRYPTION: "aws:kms:dsse"}, Refusal.NOT_OFFERED, ENCRYPTION),
        ({ENCRYPTION: "AES256", **CUSTOMER}, Refusal.INVALID_ARGUMENT, ENCRYPTION),
        ({ENCRYPTION: "AES256", KEY_ID: "k"}, Refusal.INVALID_ARGUMENT, KEY_ID),
        ({ENCRYPTION: "AES256", CONTEXT: MAP}, Refusal.INVALID_ARGUMENT, CONTEXT),
        ({KEY_ID: "k"}, Refusal.INVALID_ARGUMENT, KEY_ID),
        ({KEY_ID: "k", **CUSTOMER}, Refusal.INVALID_ARGUMENT, KEY_ID),
        ({ENCRYPTION: "aws:kms", KEY_ID: "no spaces"}, Refusal.INVALID_ARGUMENT, KEY_ID),
        ({ENCRYPTION: "aws:kms", BUCKET_KEY: "yes"}, Refusal.INVALID_ARGUMENT, BUCKET_KEY),
        ({ENCRYPTION: "aws:kms", CONTEXT: "{}"}, Refusal.INVALID_ARGUMENT, CONTEXT),
        ({ENCRYPTION: "aws:kms", CONTEXT: in_base64(b"[1]")}, Refusal.INVALID_ARGUMENT, CONTEXT),
        (
            {ENCRYPTION: "aws:kms", CONTEXT: in_base64(b'{"a": 1}')},
            Refusal.INVALID_ARGUMENT,
            CONTEXT,
        ),
        ({ENCRYPTION: "aws:kms", CONTEXT: in_base64(b"\xff")}, Refusal.INVALID_ARGUMENT, CONTEXT),
        (
            {ENCRYPTION: "aws:kms", CONTEXT: in_base64(b"[" * 6000)},
            Refusal.INVALID_ARGUMENT,
            CONTEXT,
        ),
        (but(algorithm=None), Refusal.INVALID_ARGUMENT, CUSTOMER_ALGORITHM),
        (but(algorithm="AES192"), Refusal.INVALID_ALGORITHM, CUSTOMER_ALGORITHM),
        (but(key=None), Refusal.INVALID_ARGUMENT, CUSTOMER_KEY),
        (but(key="not base64!"), Refusal.INVALID_ARGUMENT, CUSTOMER_KEY),
        (but(key=in_base64(b"short")), Refusal.INVALID_ARGUMENT, CUSTOMER_KEY),
        (but(md5=None), Refusal.INVALID_ARGUMENT, CUSTOMER_KEY_MD5),
        (but(md5=in_base64(bytes(16))), Refusal.INVALID_ARGUMENT, CUSTOMER_KEY_MD5),
        (but(md5="é"), Refusal.INVALID_ARGUMENT, CUSTOMER_KEY_MD5),
    ],
)
def test_what_a_write_may_not_ask(headers: dict[str, str], refusal: Refusal, argument: str) -> None:
    with pytest.raises(EncryptionRefused) as raised:
        wanted_encryption(headers, None)
    assert (raised.value.refusal, raised.value.argument) == (refusal, argument)


def test_a_refusal_never_repeats_a_key() -> None:
    for headers in (but(key=in_base64(b"short")), but(md5=in_base64(bytes(16)))):
        with pytest.raises(EncryptionRefused) as raised:
            wanted_encryption(headers, None)
        assert headers[CUSTOMER_KEY] not in (raised.value.value, raised.value.message)
    assert "kkkk" not in repr(BROUGHT)


def test_a_blocked_form_is_refused_and_others_are_not() -> None:
    blocking = Default("AES256", blocked=("SSE-C",))
    with pytest.raises(EncryptionRefused) as raised:
        wanted_encryption(CUSTOMER, blocking)
    assert raised.value.refusal is Refusal.ACCESS_DENIED
    assert wanted_encryption({}, blocking) == Wanted(Kind.SSE_S3)


def test_a_copys_source_has_headers_of_its_own() -> None:
    renamed = {name.replace("x-amz-", SOURCE): value for name, value in CUSTOMER.items()}
    assert customer_key(renamed, SOURCE) == BROUGHT
    assert customer_key(renamed) is None
    assert customer_key(CUSTOMER, SOURCE) is None


@pytest.mark.parametrize(
    ("text", "key_id"),
    [
        ("", "aws/s3"),
        ("team/a-1", "team/a-1"),
        ("arn:aws:kms:us-east-1:123456789012:key/team", "team"),
        ("arn:aws:kms:us-east-1:123456789012:alias/team", "alias/team"),
    ],
)
def test_a_master_key_may_be_named_by_id_or_arn(text: str, key_id: str) -> None:
    assert key_named(text) == key_id


@pytest.mark.parametrize(
    ("secure", "remote", "over_http", "allowed"),
    [
        (True, "192.0.2.1", False, True),
        (False, "192.0.2.1", False, False),
        (False, "192.0.2.1", True, True),
        (False, "127.0.0.1", False, True),
        (False, "::1", False, True),
        (False, "::ffff:127.0.0.1", False, True),
        (False, "::ffff:192.0.2.1", False, False),
        (False, "", False, True),
        (False, "what", False, False),
    ],
)
def test_a_key_is_taken_only_where_nobody_can_listen(
    secure: bool, remote: str, over_http: bool, allowed: bool
) -> None:
    for headers in (CUSTOMER, {f"{SOURCE}server-side-encryption-customer-key": "x"}):
        if allowed:
            demand_confidential(headers, secure=secure, remote=remote, over_http=over_http)
            continue
        with pytest.raises(EncryptionRefused) as raised:
            demand_confidential(headers, secure=secure, remote=remote, over_http=over_http)
        assert raised.value.refusal is Refusal.INVALID_REQUEST
    demand_confidential({ENCRYPTION: "AES256"}, secure=False, remote="192.0.2.1", over_http=False)


OTHER = CustomerKey(b"o" * 32, "b3RoZXI=")


@pytest.mark.parametrize(
    ("kind", "customer", "of_read", "of_part"),
    [
        ("", None, None, None),
        ("", BROUGHT, Refusal.INVALID_REQUEST, Refusal.INVALID_REQUEST),
        ("AES256", None, None, None),
        ("aws:kms", BROUGHT, Refusal.INVALID_REQUEST, Refusal.INVALID_REQUEST),
        ("SSE-C", None, Refusal.INVALID_REQUEST, Refusal.INVALID_REQUEST),
        ("SSE-C", OTHER, Refusal.ACCESS_DENIED, Refusal.INVALID_REQUEST),
        ("SSE-C", BROUGHT, None, None),
    ],
)
def test_whose_key_fits(
    kind: str, customer: CustomerKey | None, of_read: Refusal | None, of_part: Refusal | None
) -> None:
    for demand, refusal in ((demand_fitting_key, of_read), (demand_part_key, of_part)):
        if refusal is None:
            demand(kind, MD5, customer)
            continue
        with pytest.raises(EncryptionRefused) as raised:
            demand(kind, MD5, customer)
        assert raised.value.refusal is refusal


@pytest.mark.parametrize("name", [ENCRYPTION, KEY_ID, CONTEXT, BUCKET_KEY])
def test_a_read_names_no_method(name: str) -> None:
    refuse_on_read(CUSTOMER)
    with pytest.raises(EncryptionRefused):
        refuse_on_read({name: "x"})


@pytest.mark.parametrize(
    ("algorithm", "key_id", "refusal"),
    [
        ("AES256", "", None),
        ("aws:kms", "", None),
        ("aws:kms", "k", None),
        ("", "", None),
        ("AES512", "", Refusal.MALFORMED_XML),
        ("aws:kms:dsse", "", Refusal.NOT_OFFERED),
        ("AES256", "k", Refusal.INVALID_ARGUMENT),
        ("aws:kms", "no spaces", Refusal.INVALID_ARGUMENT),
    ],
)
def test_which_rules_a_bucket_may_have(
    algorithm: str, key_id: str, refusal: Refusal | None
) -> None:
    if refusal is None:
        assert default_rule(algorithm, key_id, False, ()) == Default(algorithm, key_id)
        return
    with pytest.raises(EncryptionRefused) as raised:
        default_rule(algorithm, key_id, False, ())
    assert raised.value.refusal is refusal
