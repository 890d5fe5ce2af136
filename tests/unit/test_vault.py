"""Vault's transit engine against a double that speaks its recorded answers."""

import asyncio
import base64
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from gateway.kms.port import (
    DataKey,
    KeyNotFound,
    KeyServiceDenied,
    KeyServiceUnavailable,
    KeyUnusable,
)
from gateway.kms.settings import VaultSettings
from gateway.kms.vault import VaultTransit
from placement.clock import SystemRandomness
from tests.unit.vault_double import TOKEN, Double


class Elsewhere:
    """Opens what is not Vault's."""

    async def new_data_key(self, key_id: str, context: bytes) -> DataKey:
        raise AssertionError("new keys are Vault's")

    async def open_data_key(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        return b"elsewhere"


class HandClock:
    """Monotonic time that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now_ns(self) -> int:
        return 0

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def double() -> Iterator[Double]:
    server = Double()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Bench:
    """A client of the double."""

    def __init__(self, double: Double, folder: Path) -> None:
        self.token = folder / "token"
        self.token.write_text(TOKEN + "\n")
        self.clock = HandClock()
        settings = VaultSettings(double.url, str(self.token))
        self.vault = VaultTransit(
            settings, Elsewhere(), clock=self.clock, randomness=SystemRandomness()
        )


def run(double: Double, folder: Path, scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = Bench(double, folder)
        try:
            await scenario(bench)
        finally:
            await bench.vault.close()

    asyncio.run(main())


def test_a_data_key_is_wrapped_and_opened_by_vault(double: Double, tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        made = await bench.vault.new_data_key("team-a", b'{"a":"b"}')
        assert made.wrapped.startswith(b"vault:v1:")
        fresh = Bench(double, tmp_path)
        opened = await fresh.vault.open_data_key("team-a", made.wrapped, b'{"a":"b"}')
        assert opened == made.key
        with pytest.raises(KeyUnusable):
            await fresh.vault.open_data_key("team-a", made.wrapped, b"")
        await fresh.vault.close()
        path, body = double.asked[0]
        assert path == "/v1/transit/encrypt/team-a"
        assert base64.b64decode(body["plaintext"]) == made.key
        assert base64.b64decode(body["associated_data"]) == b'{"a":"b"}'

    run(double, tmp_path, scenario)


def test_an_opened_key_serves_again_for_a_minute(double: Double, tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        made = await bench.vault.new_data_key("team-a", b"")
        for _ in range(3):
            assert await bench.vault.open_data_key("team-a", made.wrapped, b"") == made.key
        assert len(double.asked) == 1
        bench.clock.seconds += 61
        await bench.vault.open_data_key("team-a", made.wrapped, b"")
        assert [path for path, _ in double.asked][1:] == ["/v1/transit/decrypt/team-a"]

    run(double, tmp_path, scenario)


def test_a_closed_connection_is_made_anew(double: Double, tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        double.drop = True
        for _ in range(12):
            await bench.vault.new_data_key("team-a", b"")

    run(double, tmp_path, scenario)


def test_what_the_ring_wrapped_is_opened_by_the_ring(double: Double, tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        assert await bench.vault.open_data_key("a", b"\0\0\0\x01rest", b"") == b"elsewhere"
        assert double.asked == []

    run(double, tmp_path, scenario)


def test_a_renewed_token_is_used_at_once(double: Double, tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        bench.token.write_text("expired")
        with pytest.raises(KeyServiceDenied):
            await bench.vault.new_data_key("team-a", b"")
        bench.token.write_text(TOKEN)
        await bench.vault.new_data_key("team-a", b"")
        bench.token.unlink()
        with pytest.raises(KeyServiceUnavailable):
            await bench.vault.new_data_key("team-a", b"")

    run(double, tmp_path, scenario)


@pytest.mark.parametrize(
    ("status", "content", "error"),
    [
        (400, b'{"errors":["encryption key not found"]}', KeyNotFound),
        (404, b'{"errors":[]}', KeyNotFound),
        (403, b'{"errors":["permission denied"]}', KeyServiceDenied),
        (400, b'{"errors":["invalid ciphertext"]}', KeyUnusable),
        (503, b'{"errors":["Vault is sealed"]}', KeyServiceUnavailable),
        (500, b"<html>", KeyServiceUnavailable),
        (200, b"[]", KeyServiceUnavailable),
        (200, b'{"data":{}}', KeyServiceUnavailable),
    ],
)
def test_what_vault_refuses(
    double: Double, tmp_path: Path, status: int, content: bytes, error: type[Exception]
) -> None:
    async def scenario(bench: Bench) -> None:
        double.failing = (status, content)
        with pytest.raises(error):
            await bench.vault.new_data_key("team-a", b"")

    run(double, tmp_path, scenario)


def test_a_vault_that_is_away_is_unavailable(tmp_path: Path) -> None:
    async def main() -> None:
        token = tmp_path / "token"
        token.write_text(TOKEN)
        settings = VaultSettings("http://127.0.0.1:9", str(token))
        vault = VaultTransit(
            settings, Elsewhere(), clock=HandClock(), randomness=SystemRandomness()
        )
        with pytest.raises(KeyServiceUnavailable):
            await vault.new_data_key("team-a", b"")
        await vault.close()

    asyncio.run(main())
    with pytest.raises(ValueError, match="not an http"):
        VaultTransit(
            VaultSettings("ftp://x", ""),
            Elsewhere(),
            clock=HandClock(),
            randomness=SystemRandomness(),
        )
