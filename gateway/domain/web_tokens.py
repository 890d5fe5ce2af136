"""Tokens of OpenID Connect providers: read, verified against the provider's keys, claims checked.

Sources: RFC 7515 (JWS compact form), RFC 7517 and 7518 (keys, algorithms), RFC 7519 (claims), OpenID
Connect Core, "ID Token Validation". Only signatures with a public key are taken: a token that names
"none" or a shared secret is refused, whatever keys there are.
"""

import binascii
import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

TOKEN_LENGTH_MAX: Final = 20_000
_OF_SESSIONS: Final = ("https://aws.amazon.com/tags", "https://aws.amazon.com/source_identity")
SKEW_SECONDS: Final = 60
KEYS_MAX: Final = 100
_RSA: Final[dict[str, hashes.HashAlgorithm]] = {
    "RS256": hashes.SHA256(),
    "RS384": hashes.SHA384(),
    "RS512": hashes.SHA512(),
}
_EC: Final[dict[str, tuple[str, hashes.HashAlgorithm, int]]] = {
    "ES256": ("P-256", hashes.SHA256(), 32),
    "ES384": ("P-384", hashes.SHA384(), 48),
}
_CURVES: Final[dict[str, ec.EllipticCurve]] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}
_RSA_BITS_MIN, _RSA_BITS_MAX = 2048, 8192


class TokenInvalid(Exception):
    """It is no token, or none of this provider's, or not for this client."""


class TokenExpired(Exception):
    """It was good once."""


PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A key of a provider. `key_id` may be empty; `curve` is of an elliptic key."""

    key_id: str
    key: PublicKey
    curve: str = ""


@dataclass(frozen=True, slots=True)
class WebToken:
    """A token as it claims to be; nothing is proved before `verify`."""

    algorithm: str
    key_id: str
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes

    @property
    def issuer(self) -> str:
        """The provider's URL."""
        return _text(self.claims, "iss")

    @property
    def subject(self) -> str:
        """Whom it is about."""
        return _text(self.claims, "sub")

    @property
    def audiences(self) -> tuple[str, ...]:
        """The clients that it is for."""
        found = self.claims.get("aud")
        listed = found if isinstance(found, list) else [found]
        return tuple(each for each in listed if isinstance(each, str))


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise TokenInvalid(f"The token has no {name}.")
    return value


def read_token(text: str) -> WebToken:
    """Raises TokenInvalid."""
    pieces = text.split(".")
    if len(text) > TOKEN_LENGTH_MAX or len(pieces) != 3:
        raise TokenInvalid("The token is not a signed JSON Web Token.")
    header, claims = _object(pieces[0]), _object(pieces[1])
    if "crit" in header:
        raise TokenInvalid("The token demands extensions that are not known here.")
    algorithm, key_id = header.get("alg"), header.get("kid", "")
    if not isinstance(algorithm, str) or not isinstance(key_id, str):
        raise TokenInvalid("The token's header does not parse.")
    signed = f"{pieces[0]}.{pieces[1]}".encode()
    return WebToken(algorithm, key_id, claims, signed, _bytes(pieces[2]))


def _bytes(text: str) -> bytes:
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        return b64decode(padded, b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise TokenInvalid("The token is not a signed JSON Web Token.") from None


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(_bytes(text))
    except (ValueError, RecursionError):
        raise TokenInvalid("The token is not a signed JSON Web Token.") from None
    if not isinstance(found, dict):
        raise TokenInvalid("The token is not a signed JSON Web Token.")
    return found


def read_keys(document: bytes) -> tuple[ProviderKey, ...]:
    """The keys of a JWK set; those of kinds that are not taken are left out. Raises TokenInvalid."""
    try:
        listed = json.loads(document)["keys"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise TokenInvalid("The provider's keys do not parse.") from None
    if not isinstance(listed, list):
        raise TokenInvalid("The provider's keys do not parse.")
    found = (_key(each) for each in listed[:KEYS_MAX] if isinstance(each, dict))
    return tuple(each for each in found if each is not None)


def _key(given: dict[str, Any]) -> ProviderKey | None:
    if given.get("use", "sig") != "sig":
        return None
    key_id = given.get("kid", "")
    try:
        if given.get("kty") == "RSA":
            numbers = rsa.RSAPublicNumbers(_number(given["e"]), _number(given["n"]))
            key = numbers.public_key()
            if not _RSA_BITS_MIN <= key.key_size <= _RSA_BITS_MAX:
                return None
            return ProviderKey(str(key_id), key)
        curve = given.get("crv")
        if given.get("kty") == "EC" and curve in _CURVES:
            point = ec.EllipticCurvePublicNumbers(
                _number(given["x"]), _number(given["y"]), _CURVES[curve]
            )
            return ProviderKey(str(key_id), point.public_key(), curve)
    except (KeyError, ValueError, TypeError, AttributeError, TokenInvalid):
        return None
    return None


def _number(text: str) -> int:
    return int.from_bytes(_bytes(text), "big")


def has_key(token: WebToken, keys: Sequence[ProviderKey]) -> bool:
    """Whether the key that the token names is among these."""
    return any(not token.key_id or key.key_id == token.key_id for key in keys)


def verify(token: WebToken, keys: Sequence[ProviderKey]) -> None:
    """Raises TokenInvalid unless one of the provider's keys signed it."""
    for key in keys:
        if token.key_id and key.key_id != token.key_id:
            continue
        if _signed_by(token, key):
            return
    raise TokenInvalid("The token's signature is not the provider's.")


def _signed_by(token: WebToken, key: ProviderKey) -> bool:
    try:
        if isinstance(key.key, rsa.RSAPublicKey):
            digest = _RSA.get(token.algorithm)
            if digest is None:
                return False
            key.key.verify(token.signature, token.signed, padding.PKCS1v15(), digest)
            return True
        curve, hashed, size_bytes = _EC.get(token.algorithm, ("", hashes.SHA256(), 0))
        if curve != key.curve or len(token.signature) != 2 * size_bytes:
            return False
        halves = token.signature[:size_bytes], token.signature[size_bytes:]
        first, second = (int.from_bytes(half, "big") for half in halves)
        key.key.verify(encode_dss_signature(first, second), token.signed, ec.ECDSA(hashed))
    except InvalidSignature:
        return False
    return True


def check_claims(token: WebToken, clients: Sequence[str], now_seconds: float) -> str:
    """The client that the token is for. Raises TokenExpired, TokenInvalid."""
    expires, begins = _seconds(token, "exp"), _seconds(token, "nbf", default=0)
    if now_seconds > expires + SKEW_SECONDS:
        raise TokenExpired("The token is expired.")
    if now_seconds < begins - SKEW_SECONDS:
        raise TokenInvalid("The token is not valid yet.")
    for audience in token.audiences:
        if audience in clients:
            return audience
    raise TokenInvalid("Incorrect token audience")


def _seconds(token: WebToken, name: str, default: float | None = None) -> float:
    value = token.claims.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TokenInvalid("The token does not say when it is valid.")
    return value


def session_claim(token: WebToken) -> str | None:
    """A claim that gives the session tags or a source identity, whose name AWS has set; None when
    there is none."""
    return next((name for name in token.claims if name.startswith(_OF_SESSIONS)), None)


def claim_values(token: WebToken) -> dict[str, tuple[str, ...]]:
    """The claims that conditions may ask about: texts, and lists of texts."""
    found: dict[str, tuple[str, ...]] = {}
    for name, value in token.claims.items():
        listed = value if isinstance(value, list) else [value]
        texts = tuple(each for each in listed if isinstance(each, str))
        if texts and len(texts) == len(listed):
            found[name] = texts
    return found
