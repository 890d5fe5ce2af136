"""Master keys in HashiCorp Vault: its transit engine wraps and unwraps data keys.

Data keys are made here and sent to `encrypt` with the KMS context as associated data; what comes back
("vault:v1:…") is the wrapped form. Rotation is Vault's own: the ciphertext names its version. Requests
are made by a few threads over connections that are kept. Source: Vault's API documentation, "Transit secrets engine".
"""

import asyncio
import base64
import http.client
import json
import logging
import ssl
from collections import OrderedDict, deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from gateway.kms.port import (
    DATA_KEY_SIZE_BYTES,
    DataKey,
    KeyNotFound,
    KeyService,
    KeyServiceDenied,
    KeyServiceUnavailable,
    KeyUnusable,
)
from gateway.kms.settings import VaultSettings
from placement.clock import Clock, Randomness

PREFIX: Final = b"vault:"
TIMEOUT_SECONDS: Final = 5.0
THREADS: Final = 4
ANSWER_SIZE_BYTES_MAX: Final = 64 << 10
CACHED_MAX: Final = 4096
CACHED_SECONDS: Final = 60.0
"""How long an opened data key serves again: so long a key that was disabled in Vault still reads."""

log = logging.getLogger("ostraka.kms")


class VaultTransit:
    """Implements `KeyService`. What another service (`elsewhere`) wrapped before is opened by that."""

    def __init__(
        self,
        settings: VaultSettings,
        elsewhere: KeyService,
        *,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        parts = urlsplit(settings.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"{settings.url!r} is not an http or https address")
        self._netloc = parts.netloc
        self._root = f"{parts.path.rstrip('/')}/v1/{quote(settings.mount.strip('/'))}"
        self._settings = settings
        self._tls = (
            ssl.create_default_context(cafile=settings.ca_file or None)
            if parts.scheme == "https"
            else None
        )
        self._elsewhere = elsewhere
        self._clock = clock
        self._randomness = randomness
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="vault")
        self._idle: deque[http.client.HTTPConnection] = deque()
        self._opened: OrderedDict[tuple[str, bytes, bytes], tuple[float, bytes]] = OrderedDict()

    async def close(self) -> None:
        """Wait for requests under way, release connections."""
        await asyncio.to_thread(self._threads.shutdown)
        while self._idle:
            self._idle.pop().close()

    async def new_data_key(self, key_id: str, context: bytes) -> DataKey:
        """See `KeyService`."""
        key = self._randomness.token(DATA_KEY_SIZE_BYTES)
        told = {"plaintext": _text(key), "associated_data": _text(context)}
        wrapped = (await self._ask("encrypt", key_id, told)).get("ciphertext")
        if not isinstance(wrapped, str) or not wrapped.startswith("vault:"):
            raise KeyServiceUnavailable("Vault's answer has no ciphertext")
        made = DataKey(key, wrapped.encode())
        self._remember((key_id, made.wrapped, context), key)
        return made

    async def open_data_key(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """See `KeyService`."""
        if not wrapped.startswith(PREFIX):
            return await self._elsewhere.open_data_key(key_id, wrapped, context)
        place = (key_id, wrapped, context)
        cached = self._opened.get(place)
        if cached is not None and self._clock.monotonic() - cached[0] < CACHED_SECONDS:
            return cached[1]
        told = {"ciphertext": wrapped.decode(), "associated_data": _text(context)}
        plain = (await self._ask("decrypt", key_id, told)).get("plaintext")
        try:
            key = base64.b64decode(plain, validate=True) if isinstance(plain, str) else b""
        except ValueError:
            key = b""
        if len(key) != DATA_KEY_SIZE_BYTES:
            raise KeyUnusable(f"Vault opened something else than a data key with {key_id!r}")
        self._remember(place, key)
        return key

    def _remember(self, place: tuple[str, bytes, bytes], key: bytes) -> None:
        self._opened[place] = (self._clock.monotonic(), key)
        self._opened.move_to_end(place)
        if len(self._opened) > CACHED_MAX:
            self._opened.popitem(last=False)

    async def _ask(self, verb: str, key_id: str, told: Mapping[str, str]) -> Mapping[str, Any]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._call, verb, key_id, told)

    # In threads

    def _call(self, verb: str, key_id: str, told: Mapping[str, str]) -> Mapping[str, Any]:
        path = f"{self._root}/{verb}/{quote(key_id, safe='')}"
        try:
            status, content = self._exchange(path, json.dumps(told))
        except (OSError, http.client.HTTPException) as error:
            log.warning("Vault cannot be reached: %s", error)
            raise KeyServiceUnavailable("the key service cannot be reached") from error
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            answer = {}
        if status == 200 and isinstance(answer.get("data"), dict):
            return answer["data"]  # type: ignore[no-any-return]
        raise self._refusal(status, key_id, str(answer.get("errors", "")))

    def _exchange(self, path: str, body: str) -> tuple[int, bytes]:
        """One request, over a kept connection while there is one that still works."""
        headers = {
            "Content-Type": "application/json",
            "X-Vault-Request": "true",
            "X-Vault-Token": Path(self._settings.token_file).read_text().strip(),
        }
        if self._settings.namespace:
            headers["X-Vault-Namespace"] = self._settings.namespace
        while self._idle:
            try:
                kept = self._idle.pop()
            except IndexError:
                break
            try:
                return self._over(kept, path, body, headers)
            except (ConnectionError, http.client.BadStatusLine):
                continue  # Vault closed it meanwhile: encrypting or decrypting again does no harm
        return self._over(self._connect(), path, body, headers)

    def _over(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        body: str,
        headers: Mapping[str, str],
    ) -> tuple[int, bytes]:
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            content = answer.read(ANSWER_SIZE_BYTES_MAX)
        except BaseException:
            connection.close()
            raise
        if answer.isclosed():
            self._idle.append(connection)
        else:
            connection.close()  # the answer was longer than any of Vault's
        return answer.status, content

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._netloc, timeout=TIMEOUT_SECONDS)
        return http.client.HTTPSConnection(self._netloc, timeout=TIMEOUT_SECONDS, context=self._tls)

    def _refusal(self, status: int, key_id: str, errors: str) -> Exception:
        if status == 404 or (status == 400 and "key not found" in errors):
            return KeyNotFound(key_id)
        if status == 403:
            log.warning("Vault denies the use of key %r: %s", key_id, errors)
            return KeyServiceDenied(f"the key service denies the use of key '{key_id}'")
        if status == 400:
            return KeyUnusable(f"Vault does not open a data key with key {key_id!r}: {errors}")
        log.warning("Vault answered %d: %s", status, errors)
        return KeyServiceUnavailable(f"the key service answered {status}")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
