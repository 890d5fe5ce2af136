"""The keys of OpenID Connect providers, fetched from them and kept for minutes.

Only URLs that an account registered are asked, and where their discovery documents point; redirects
are not followed, answers and waiting are bounded.
"""

import asyncio
import http.client
import json
import ssl
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from gateway.domain.web_tokens import ProviderKey, TokenInvalid, WebToken, has_key, read_keys
from placement.clock import Clock

KEPT_SECONDS: Final = 300.0
ASKED_AGAIN_SECONDS: Final = 10.0
"""How soon a provider is asked again when a token names a key that it had not."""
TIMEOUT_SECONDS: Final = 5.0
DOCUMENT_SIZE_BYTES_MAX: Final = 256 * 1024
_PROVIDERS_MAX: Final = 100
_DISCOVERY: Final = "/.well-known/openid-configuration"


class ProviderUnreachable(Exception):
    """The provider did not tell its keys."""


class _Kept(NamedTuple):
    keys: tuple[ProviderKey, ...]
    read_at: float


class ProviderKeys:
    """One a process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._failed: dict[str, float] = {}
        self._threads = ThreadPoolExecutor(2, "oidc")

    async def of(self, url: str, token: WebToken) -> tuple[ProviderKey, ...]:
        """The keys of the provider, among them the token's where there is one. Raises
        ProviderUnreachable."""
        kept = self._kept.get(url)
        age = 0.0 if kept is None else self._clock.monotonic() - kept.read_at
        if kept is not None and (
            age < ASKED_AGAIN_SECONDS or (age < KEPT_SECONDS and has_key(token, kept.keys))
        ):
            return kept.keys
        failed_at = self._failed.get(url)
        if failed_at is not None and self._clock.monotonic() - failed_at < ASKED_AGAIN_SECONDS:
            # Nobody signed these requests: they must not make us knock without end.
            raise ProviderUnreachable("the provider was not reached just now")
        loop = asyncio.get_running_loop()
        try:
            keys = await loop.run_in_executor(self._threads, _fetch_keys, url)
        except (OSError, http.client.HTTPException, ValueError, TokenInvalid) as error:
            if len(self._failed) >= _PROVIDERS_MAX:
                self._failed.clear()
            self._failed[url] = self._clock.monotonic()
            raise ProviderUnreachable(str(error)) from error
        self._failed.pop(url, None)
        self._kept[url] = _Kept(keys, self._clock.monotonic())
        self._kept.move_to_end(url)
        if len(self._kept) > _PROVIDERS_MAX:
            self._kept.popitem(last=False)
        return keys


def _fetch_keys(url: str) -> tuple[ProviderKey, ...]:
    discovery = json.loads(_fetch(url.rstrip("/") + _DISCOVERY))
    where = str(discovery.get("jwks_uri")) if isinstance(discovery, dict) else ""
    if url.startswith("https:") and not where.startswith("https:"):
        raise ValueError("the provider's keys are not served over https")
    return read_keys(_fetch(where))


def _fetch(url: str) -> bytes:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"not a URL to ask: {url}")
    connection = (
        http.client.HTTPSConnection(
            parts.hostname,
            parts.port,
            timeout=TIMEOUT_SECONDS,
            context=ssl.create_default_context(),
        )
        if parts.scheme == "https"
        else http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)
    )
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        body = answer.read(DOCUMENT_SIZE_BYTES_MAX + 1)
    finally:
        connection.close()
    if answer.status != 200 or len(body) > DOCUMENT_SIZE_BYTES_MAX:
        raise ValueError(f"the provider answered {answer.status} with {len(body)} bytes")
    return body
