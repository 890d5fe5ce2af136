"""Session tokens: sealed with the cluster's key and complete in themselves, so that nothing is stored.

A token names its account and its user or role; their policies are read when it is used, so whatever
is taken from a role, or the role itself, is gone from its sessions too.
"""

import binascii
from base64 import b64decode, urlsafe_b64encode
from typing import NamedTuple

from gateway.metadata.credentials import Credentials
from gateway.metadata.errors import SealBroken
from gateway.metadata.identity_records import SessionRecord
from gateway.metadata.records import RecordError, decode, encode
from gateway.s3.authentication import TEMPORARY

TOKEN_LENGTH_MAX = 8192


class NewSession(NamedTuple):
    """Temporary credentials; told once."""

    access_key: str
    secret: str
    token: str
    expires_ms: int

    def __repr__(self) -> str:
        return f"NewSession({self.access_key!r})"


class Sessions:
    """Issues tokens and reads them."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def issue(
        self,
        account_id: str,
        entity_id: str,
        lifetime_seconds: int,
        *,
        name: str = "",
        policy: bytes = b"",
    ) -> NewSession:
        """Credentials for the root, a user or a role of an account. `policy` is packed."""
        access_key, secret = self._credentials.access_key(TEMPORARY), self._credentials.secret()
        expires_ms = self._credentials.now_ms() + lifetime_seconds * 1000
        record = SessionRecord(
            account_id=account_id,
            entity_id=entity_id,
            secret=secret,
            expires_ms=expires_ms,
            name=name,
            policy=policy,
        )
        sealed = self._credentials.seal(encode(record), _belongs_to(access_key))
        return NewSession(access_key, secret, urlsafe_b64encode(sealed).decode(), expires_ms)

    def read(self, access_key: str, token: str) -> SessionRecord | None:
        """What a token of that access key says; None when it is none of ours. It may be expired."""
        if len(token) > TOKEN_LENGTH_MAX:
            return None
        try:
            sealed = b64decode(token.encode("ascii"), b"-_", validate=True)
            return decode(SessionRecord, self._credentials.open(sealed, _belongs_to(access_key)))
        except (SealBroken, RecordError, binascii.Error, ValueError):
            return None


def _belongs_to(access_key: str) -> bytes:
    return b"session/" + access_key.encode()
