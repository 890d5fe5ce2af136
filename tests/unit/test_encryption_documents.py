"""The body of PutBucketEncryption: what is read of it, and what is malformed."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.encryption_documents import EncryptionRule, parse_encryption
from gateway.s3.errors import ErrorCode, S3Error

ROOT = "ServerSideEncryptionConfiguration"


def document(*rules: str, namespace: str = "") -> bytes:
    inner = "".join(f"<Rule>{rule}</Rule>" for rule in rules)
    return f"<{ROOT}{namespace}>{inner}</{ROOT}>".encode()


def by_default(inner: str) -> str:
    return f"<ApplyServerSideEncryptionByDefault>{inner}</ApplyServerSideEncryptionByDefault>"


AES = by_default("<SSEAlgorithm>AES256</SSEAlgorithm>")
KMS = by_default("<SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>k</KMSMasterKeyID>")
BLOCKED = "<BlockedEncryptionTypes><EncryptionType>{}</EncryptionType></BlockedEncryptionTypes>"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (document(AES), EncryptionRule("AES256")),
        (
            document(AES, namespace=' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'),
            EncryptionRule("AES256"),
        ),
        (document(KMS), EncryptionRule("aws:kms", "k")),
        (
            document(f"{KMS}<BucketKeyEnabled>true</BucketKeyEnabled>"),
            EncryptionRule("aws:kms", "k", bucket_key=True),
        ),
        (document(BLOCKED.format("SSE-C")), EncryptionRule(blocked=("SSE-C",))),
        (document(AES + BLOCKED.format("NONE")), EncryptionRule("AES256")),
    ],
)
def test_a_rule_is_read(text: bytes, rule: EncryptionRule) -> None:
    assert parse_encryption(text) == rule


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<Other/>",
        document(),
        document(AES, AES),
        document(""),
        document(by_default("")),
        document(by_default("<SSEAlgorithm/>")),
        document(by_default("<KMSMasterKeyID>k</KMSMasterKeyID>")),
        document(by_default("<SSEAlgorithm>AES256</SSEAlgorithm>" * 2)),
        document(by_default("<SSEAlgorithm><a/></SSEAlgorithm>")),
        document(AES + AES),
        document(f"{AES}<BucketKeyEnabled>yes</BucketKeyEnabled>"),
        document(f"{AES}<BucketKeyEnabled>1</BucketKeyEnabled>"),
        document(f"{AES}<Unknown/>"),
        document(BLOCKED.format("SSE-S3")),
        document("<BlockedEncryptionTypes/>"),
        document(f"{AES}<BlockedEncryptionTypes><Type>SSE-C</Type></BlockedEncryptionTypes>"),
        f"<{ROOT}><Rules>{AES}</Rules></{ROOT}>".encode(),
    ],
)
def test_what_is_malformed_is_refused(text: bytes) -> None:
    with pytest.raises(S3Error) as raised:
        parse_encryption(text)
    assert raised.value.code is ErrorCode.MALFORMED_XML


@given(
    st.lists(
        st.sampled_from(
            [
                *("<Rule>", "</Rule>", AES, KMS, "<SSEAlgorithm>", "</SSEAlgorithm>", "AES256"),
                *("<?pi?>", "<!--c-->", "&amp;", "&x;", "<a", "\x00", BLOCKED.format("SSE-C")),
            ]
        ),
        max_size=8,
    )
)
def test_nothing_does_worse_than_malformed(pieces: list[str]) -> None:
    with contextlib.suppress(S3Error):
        parse_encryption(f"<{ROOT}>{''.join(pieces)}</{ROOT}>".encode())
