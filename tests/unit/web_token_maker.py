"""Makes the tokens that an OpenID Connect provider would: for tests."""

import json
from base64 import urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature


def encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int) -> str:
    return encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class TokenMaker:
    """A provider's keys: one RSA, one elliptic."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())

    def jwks(self) -> bytes:
        numbers, point = self.rsa.public_key().public_numbers(), self.ec.public_key()
        place = point.public_numbers()
        return json.dumps(
            {
                "keys": [
                    {"kty": "oct", "k": "c2VjcmV0"},
                    {
                        "kty": "RSA",
                        "kid": "r",
                        "use": "sig",
                        "n": _number(numbers.n),
                        "e": _number(numbers.e),
                    },
                    {
                        "kty": "EC",
                        "kid": "e",
                        "crv": "P-256",
                        "x": encoded(place.x.to_bytes(32, "big")),
                        "y": encoded(place.y.to_bytes(32, "big")),
                    },
                ]
            }
        ).encode()

    def token(self, claims: dict[str, Any], *, algorithm: str = "RS256", kid: str = "r") -> str:
        header = {"alg": algorithm, "typ": "JWT", "kid": kid}
        signed = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
        if algorithm == "ES256":
            first, second = decode_dss_signature(
                self.ec.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
            )
            signature = first.to_bytes(32, "big") + second.to_bytes(32, "big")
        elif algorithm == "none":
            signature = b""
        else:
            signature = self.rsa.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{encoded(signature)}"
