"""Makes the forms that browsers and SDKs send, for tests of uploads by POST."""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

BOUNDARY = "----WebKitFormBoundaryx7"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


class PlainBody:
    """Bytes that are all there."""

    def __init__(self, data: bytes) -> None:
        self.size_bytes = len(data)
        self._rest = data

    async def read_into(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def form(
    fields: Sequence[tuple[str, str | bytes]],
    data: bytes | None,
    *,
    file_name: str = "photo.jpg",
    after: Sequence[tuple[str, str]] = (),
    end: bytes = b"--\r\n",
) -> bytes:
    """A form as a browser writes it; `data` None: without a file."""
    out = b""
    for name, value in fields:
        out += _part(f'name="{name}"', value if isinstance(value, bytes) else value.encode())
    if data is not None:
        out += _part(f'name="file"; filename="{file_name}"', data, "Content-Type: image/jpeg\r\n")
    for name, text in after:
        out += _part(f'name="{name}"', text.encode())
    return out + b"--" + BOUNDARY.encode() + end


def _part(parameters: str, value: bytes, more: str = "") -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; {parameters}\r\n{more}\r\n"
    return head.encode() + value + b"\r\n"


def policy(conditions: Sequence[Any], *, seconds: float = 600, **more: Any) -> str:
    """A policy document that expires that many seconds from now, in base64."""
    expires = datetime.now(UTC) + timedelta(seconds=seconds)
    document = {"expiration": expires.strftime("%Y-%m-%dT%H:%M:%S.000Z"), "conditions": conditions}
    return base64.b64encode(json.dumps({**document, **more}).encode()).decode()


def signed_v2(
    access_key: str, secret: str, conditions: Sequence[Any], **more: Any
) -> list[tuple[str, str]]:
    """The fields of a form signed with version 2."""
    text = policy(conditions, **more)
    digest = hmac.new(secret.encode(), text.encode(), "sha1").digest()
    return [
        ("AWSAccessKeyId", access_key),
        ("policy", text),
        ("signature", base64.b64encode(digest).decode()),
    ]


def signed_v4(
    access_key: str,
    secret: str,
    conditions: Sequence[Any],
    *,
    region: str = "us-east-1",
    **more: Any,
) -> list[tuple[str, str]]:
    """The fields of a form signed with version 4; their conditions are added."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    fields = [
        ("x-amz-algorithm", "AWS4-HMAC-SHA256"),
        ("x-amz-credential", f"{access_key}/{stamp[:8]}/{region}/s3/aws4_request"),
        ("x-amz-date", stamp),
    ]
    text = policy([*conditions, *({name: value} for name, value in fields)], **more)
    key = f"AWS4{secret}".encode()
    for word in (stamp[:8], region, "s3", "aws4_request"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return [*fields, ("policy", text), ("X-Amz-Signature", signature)]
