"""Keys of identity providers: kept, asked for again, and not asked for without end."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.domain.web_tokens import ProviderKey, TokenInvalid, read_keys, read_token
from gateway.iam import provider_keys
from gateway.iam.provider_keys import (
    ASKED_AGAIN_SECONDS,
    KEPT_SECONDS,
    ProviderKeys,
    ProviderUnreachable,
)
from tests.unit.metadata_doubles import TestClock
from tests.unit.web_token_maker import TokenMaker

MAKER = TokenMaker()
KNOWN = read_token(MAKER.token({}, kid="r"))
UNKNOWN = read_token(MAKER.token({}, kid="new"))
URL = "https://idp.example.com"


class Fetches:
    """Stands for the network; counts."""

    def __init__(self) -> None:
        self.count = 0
        self.works = True

    def __call__(self, url: str) -> tuple[ProviderKey, ...]:
        self.count += 1
        if not self.works:
            raise OSError("no route")
        return read_keys(MAKER.jwks())


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> Fetches:
    found = Fetches()
    monkeypatch.setattr(provider_keys, "_fetch_keys", found)
    return found


def test_keys_are_kept_and_a_new_one_is_looked_for_now_and_then(fetches: Fetches) -> None:
    clock = TestClock()
    keys = ProviderKeys(clock)

    async def main() -> None:
        for token in (KNOWN, KNOWN, UNKNOWN):
            await keys.of(URL, token)
        assert fetches.count == 1
        clock.seconds = ASKED_AGAIN_SECONDS + 1
        await keys.of(URL, KNOWN)
        assert fetches.count == 1
        await keys.of(URL, UNKNOWN)
        assert fetches.count == 2
        clock.seconds += KEPT_SECONDS + 1
        await keys.of(URL, KNOWN)
        assert fetches.count == 3

    asyncio.run(main())


def test_a_provider_that_is_away_is_not_asked_by_each_request(fetches: Fetches) -> None:
    clock = TestClock()
    keys = ProviderKeys(clock)
    fetches.works = False

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(ProviderUnreachable):
                await keys.of(URL, KNOWN)
        assert fetches.count == 1
        fetches.works = True
        clock.seconds = ASKED_AGAIN_SECONDS + 1
        assert await keys.of(URL, KNOWN)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("discovery", "url"),
    [
        (b"[]", URL),
        (b"{}", URL),
        (b'{"jwks_uri": "http://idp.example.com/keys"}', URL),
        (b'{"jwks_uri": "file:///etc/passwd"}', "http://idp.example.com"),
        (b"nonsense", URL),
    ],
)
def test_discovery_that_leads_nowhere_is_refused(
    discovery: bytes, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[[str], bytes] = provider_keys._fetch

    def fetch(asked: str) -> bytes:
        return discovery if asked.endswith("configuration") else real(asked)

    monkeypatch.setattr(provider_keys, "_fetch", fetch)
    with pytest.raises((ValueError, TokenInvalid)):
        provider_keys._fetch_keys(url)
