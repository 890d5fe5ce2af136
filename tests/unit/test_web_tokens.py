"""Tokens of identity providers: signatures, claims, and what must never be believed."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.web_tokens import (
    SKEW_SECONDS,
    TokenExpired,
    TokenInvalid,
    check_claims,
    claim_values,
    has_key,
    read_keys,
    read_token,
    verify,
)
from tests.unit.web_token_maker import TokenMaker, encoded

MAKER = TokenMaker()
KEYS = read_keys(MAKER.jwks())
CLAIMS: dict[str, Any] = {"iss": "https://idp", "sub": "me", "aud": ["app", "x"], "exp": 1000}


@pytest.mark.parametrize(("algorithm", "kid"), [("RS256", "r"), ("ES256", "e"), ("RS256", "")])
def test_a_token_of_the_provider_is_believed(algorithm: str, kid: str) -> None:
    token = read_token(MAKER.token(CLAIMS, algorithm=algorithm, kid=kid))
    assert has_key(token, KEYS)
    verify(token, KEYS)
    assert (token.issuer, token.subject, token.audiences) == ("https://idp", "me", ("app", "x"))
    assert check_claims(token, ("app",), 999) == "app"


@pytest.mark.parametrize(
    ("algorithm", "kid"),
    [("none", "r"), ("none", ""), ("HS256", "r"), ("RS256", "e"), ("ES256", "r"), ("RS256", "z")],
)
def test_a_token_with_another_algorithm_or_key_is_not(algorithm: str, kid: str) -> None:
    with pytest.raises(TokenInvalid):
        verify(read_token(MAKER.token(CLAIMS, algorithm=algorithm, kid=kid)), KEYS)


def test_a_changed_token_is_not_believed() -> None:
    header, _, signature = MAKER.token(CLAIMS).split(".")
    forged = f"{header}.{encoded(b'{}')}.{signature}"
    with pytest.raises(TokenInvalid):
        verify(read_token(forged), KEYS)
    with pytest.raises(TokenInvalid):
        verify(read_token(MAKER.token(CLAIMS)), read_keys(TokenMaker().jwks()))


@pytest.mark.parametrize(
    ("change", "now", "error"),
    [
        ({}, 1000 + SKEW_SECONDS + 1, TokenExpired),
        ({"nbf": 500}, 500 - SKEW_SECONDS - 1, TokenInvalid),
        ({"aud": "other"}, 1, TokenInvalid),
        ({"aud": None}, 1, TokenInvalid),
        ({"exp": None}, 1, TokenInvalid),
        ({"exp": "1000"}, 1, TokenInvalid),
        ({"exp": True}, 0, TokenInvalid),
    ],
)
def test_claims_must_hold(change: dict[str, Any], now: float, error: type[Exception]) -> None:
    token = read_token(MAKER.token({**CLAIMS, **change}))
    with pytest.raises(error):
        check_claims(token, ("app",), now)


def test_conditions_see_texts_only() -> None:
    token = read_token(MAKER.token({"Sub": "me", "aud": ["a", "b"], "n": 1, "mixed": ["a", 1]}))
    assert claim_values(token) == {"Sub": ("me",), "aud": ("a", "b")}


@given(st.text(max_size=60) | st.binary(max_size=40).map(lambda data: f"{encoded(data)}.e30.AA"))
def test_random_text_is_no_token_and_no_crash(text: str) -> None:
    with contextlib.suppress(TokenInvalid):
        verify(read_token(text), KEYS)


@given(st.binary(max_size=60))
def test_random_keys_are_none(data: bytes) -> None:
    with contextlib.suppress(TokenInvalid):
        assert read_keys(data) == ()
    assert read_keys(b'{"keys": [{"kty": "RSA", "n": 1, "e": []}, {"kty": "EC"}, 3]}') == ()
