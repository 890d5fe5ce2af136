"""Documents of settings that are the same for every bucket: what asks for more, and what is off."""

from collections.abc import Callable

import pytest

from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.fixed_documents import (
    asks_for_logging,
    asks_for_notifications,
    asks_for_requester_pays,
)

PAYER = "<RequestPaymentConfiguration>{}</RequestPaymentConfiguration>"
LOGGING = "<BucketLoggingStatus>{}</BucketLoggingStatus>"
NOTIFICATION = "<NotificationConfiguration>{}</NotificationConfiguration>"


@pytest.mark.parametrize(
    ("read", "root", "inside", "expected"),
    [
        (asks_for_requester_pays, PAYER, "<Payer>BucketOwner</Payer>", False),
        (asks_for_requester_pays, PAYER, "<Payer>Requester</Payer>", True),
        (asks_for_logging, LOGGING, "", False),
        (asks_for_logging, LOGGING, "<LoggingEnabled/>", True),
        (asks_for_notifications, NOTIFICATION, "", False),
        (asks_for_notifications, NOTIFICATION, " \n ", False),
        (asks_for_notifications, NOTIFICATION, "<EventBridgeConfiguration/>", True),
        (asks_for_notifications, NOTIFICATION, "<QueueConfiguration/><QueueConfiguration/>", True),
    ],
)
def test_what_asks_for_more(
    read: Callable[[bytes], bool], root: str, inside: str, expected: bool
) -> None:
    assert read(root.format(inside).encode()) is expected
    namespaced = root.replace(">", ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/">', 1)
    assert read(namespaced.format(inside).encode()) is expected


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (asks_for_requester_pays, ""),
        (asks_for_requester_pays, PAYER.format("")),
        (asks_for_requester_pays, PAYER.format("<Payer>Nobody</Payer>")),
        (asks_for_requester_pays, PAYER.format("<Payer>Requester</Payer><Other/>")),
        (asks_for_requester_pays, LOGGING.format("")),
        (asks_for_logging, "<BucketLoggingStatus>"),
        (asks_for_logging, LOGGING.format("<Other/>")),
        (asks_for_notifications, NOTIFICATION.format("<Other/>")),
        (asks_for_notifications, "nonsense"),
    ],
)
def test_what_is_off(read: Callable[[bytes], bool], text: str) -> None:
    with pytest.raises(S3Error) as refused:
        read(text.encode())
    assert refused.value.code is ErrorCode.MALFORMED_XML
