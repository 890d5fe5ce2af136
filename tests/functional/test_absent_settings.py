"""Settings that no bucket here can have: the truth about them, told as clients expect it."""

import json
from typing import Any

import pytest

from tests.functional.conftest import error_of


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("get_bucket_cors", "NoSuchCORSConfiguration"),
        ("get_bucket_encryption", "ServerSideEncryptionConfigurationNotFoundError"),
        ("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration"),
        ("get_bucket_policy", "NoSuchBucketPolicy"),
        ("get_bucket_ownership_controls", "OwnershipControlsNotFoundError"),
        ("get_bucket_replication", "ReplicationConfigurationNotFoundError"),
        ("get_bucket_website", "NoSuchWebsiteConfiguration"),
        ("get_object_lock_configuration", "ObjectLockConfigurationNotFoundError"),
        ("get_public_access_block", "NoSuchPublicAccessBlockConfiguration"),
    ],
)
def test_a_setting_that_is_absent_is_not_found(
    s3: Any, bucket: str, other_s3: Any, call: str, code: str
) -> None:
    assert error_of(getattr(s3, call), Bucket=bucket) == (code, 404)
    assert error_of(getattr(s3, call), Bucket="no-such-bucket") == ("NoSuchBucket", 404)
    assert error_of(getattr(other_s3, call), Bucket=bucket) == ("AccessDenied", 403)


@pytest.mark.parametrize(
    "call",
    [
        "delete_bucket_cors",
        "delete_bucket_encryption",
        "delete_bucket_lifecycle",
        "delete_bucket_policy",
        "delete_bucket_ownership_controls",
        "delete_bucket_replication",
        "delete_bucket_website",
        "delete_public_access_block",
    ],
)
def test_deleting_an_absent_setting_succeeds(s3: Any, bucket: str, call: str) -> None:
    answer = getattr(s3, call)(Bucket=bucket)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert error_of(getattr(s3, call), Bucket="no-such-bucket") == ("NoSuchBucket", 404)


def test_settings_with_one_fixed_value_are_told(s3: Any, bucket: str) -> None:
    assert not s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"]
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=bucket)
    assert "Status" not in s3.get_bucket_accelerate_configuration(Bucket=bucket)
    notification = s3.get_bucket_notification_configuration(Bucket=bucket)
    assert set(notification) == {"ResponseMetadata"}


LOGGING = {"LoggingEnabled": {"TargetBucket": "logs", "TargetPrefix": ""}}
TOPIC = {"TopicArn": "arn:aws:sns:us-east-1:123456789012:t", "Events": ["s3:ObjectCreated:*"]}
SETTINGS: list[tuple[str, str, Any, list[Any]]] = [
    (
        "put_bucket_request_payment",
        "RequestPaymentConfiguration",
        {"Payer": "BucketOwner"},
        [{"Payer": "Requester"}],
    ),
    ("put_bucket_logging", "BucketLoggingStatus", {}, [LOGGING]),
    (
        "put_bucket_notification_configuration",
        "NotificationConfiguration",
        {},
        [{"TopicConfigurations": [TOPIC]}, {"EventBridgeConfiguration": {}}],
    ),
]


@pytest.mark.parametrize(("call", "argument", "holds", "unoffered"), SETTINGS)
def test_setting_what_holds_anyway_succeeds_and_anything_else_is_refused(
    s3: Any,
    bucket: str,
    other_s3: Any,
    call: str,
    argument: str,
    holds: dict[str, Any],
    unoffered: list[dict[str, Any]],
) -> None:
    put = getattr(s3, call)
    put(Bucket=bucket, **{argument: holds})
    assert error_of(put, Bucket="no-such-bucket", **{argument: holds}) == ("NoSuchBucket", 404)
    others = error_of(getattr(other_s3, call), Bucket=bucket, **{argument: holds})
    assert others == ("AccessDenied", 403)
    for asked in unoffered:
        assert error_of(put, Bucket=bucket, **{argument: asked}) == ("NotImplemented", 501)
    test_settings_with_one_fixed_value_are_told(s3, bucket)


@pytest.mark.parametrize(
    ("action", "allowed"),
    [
        ("s3:PutBucketRequestPayment", "put_bucket_request_payment"),
        ("s3:PutBucketLogging", "put_bucket_logging"),
        ("s3:PutBucketNotification", "put_bucket_notification_configuration"),
    ],
)
def test_each_setting_has_a_permission_of_its_own(
    s3: Any,
    bucket: str,
    other_s3: Any,
    other_account: dict[str, str],
    action: str,
    allowed: str,
) -> None:
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": other_account["account_id"]},
        "Action": action,
        "Resource": f"arn:aws:s3:::{bucket}",
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    s3.put_bucket_policy(Bucket=bucket, Policy=document)
    for call, argument, holds, unoffered in SETTINGS:
        put = getattr(other_s3, call)
        if call == allowed:
            put(Bucket=bucket, **{argument: holds})
            continue
        for asked in (holds, *unoffered):
            assert error_of(put, Bucket=bucket, **{argument: asked}) == ("AccessDenied", 403)


def test_payers_that_there_are_not(s3: Any, bucket: str) -> None:
    refused = error_of(
        s3.put_bucket_request_payment,
        Bucket=bucket,
        RequestPaymentConfiguration={"Payer": "Somebody"},
    )
    assert refused == ("MalformedXML", 400)


def test_what_can_only_be_set_otherwise_is_refused(s3: Any, bucket: str) -> None:
    for status in ("Enabled", "Suspended"):
        refused = error_of(
            s3.put_bucket_accelerate_configuration,
            Bucket=bucket,
            AccelerateConfiguration={"Status": status},
        )
        assert refused == ("NotImplemented", 501)
