"""Documents of settings that are the same for every bucket: whether they ask for anything else.
Everything off raises MalformedXML.

Sources: S3 API Reference, PutBucketRequestPayment, PutBucketLogging and
PutBucketNotificationConfiguration.
"""

from typing import Final

from gateway.s3.elements import children_of, malformed, name_of, parse, text_of

BUCKET_OWNER: Final = "BucketOwner"
_REQUESTER: Final = "Requester"
_TARGETS: Final = frozenset(
    {
        *("TopicConfiguration", "QueueConfiguration", "CloudFunctionConfiguration"),
        "EventBridgeConfiguration",
    }
)


def asks_for_requester_pays(text: bytes) -> bool:
    """Whether a RequestPaymentConfiguration lets requesters pay."""
    payer = children_of(parse(text, "RequestPaymentConfiguration"), ("Payer",)).get("Payer")
    who = "" if payer is None else text_of(payer).strip()
    if who not in (BUCKET_OWNER, _REQUESTER):
        raise malformed("Payer is BucketOwner or Requester")
    return who == _REQUESTER


def asks_for_logging(text: bytes) -> bool:
    """Whether a BucketLoggingStatus names where to log to."""
    return bool(children_of(parse(text, "BucketLoggingStatus"), ("LoggingEnabled",)))


def asks_for_notifications(text: bytes) -> bool:
    """Whether a NotificationConfiguration names a target."""
    names = {name_of(child) for child in parse(text, "NotificationConfiguration")}
    if not names <= _TARGETS:
        raise malformed("a NotificationConfiguration names targets only")
    return bool(names)
