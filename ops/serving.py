"""`ostraka serve` once its options are read: the same process with a new program, that holds sockets
and starts processes and needs little memory for it. What reads options takes 15 MiB that would stay.
"""

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from ops.config import Credentials, Secret, ServeConfig


class _Order(msgspec.Struct, frozen=True):
    """What the command line and the environment said."""

    config: ServeConfig
    given: Credentials | None


def become_supervisor(config: ServeConfig, given: Credentials | None) -> NoReturn:
    """Go on as the supervisor, under the same process id. Raises OSError."""
    descriptor = os.memfd_create("ostraka-serve", 0)  # inherited; secrets are in no argument
    with open(descriptor, "wb", closefd=False) as file:
        file.write(encode(config, given))
    sys.stdout.flush()
    sys.stderr.flush()
    # -P: a package `ops` in the present folder is somebody else's. The last two words are for who
    # looks at the list of processes.
    said = ("ostraka serve", str(config.directory))
    words = [sys.executable, "-P", "-m", "ops.serving", str(descriptor), *said]
    os.execv(sys.executable, words)  # noqa: S606 - our own program


def main() -> int:
    """The supervisor's program; the exit status."""
    from ops.serve import serve

    with open(int(sys.argv[1]), "rb") as file:
        file.seek(0)
        config, given = decode(file.read())
    return serve(config, given)


def encode(config: ServeConfig, given: Credentials | None) -> bytes:
    """What one program hands to the next."""
    return msgspec.json.encode(_Order(config, given), enc_hook=_plain)


def decode(order: bytes) -> tuple[ServeConfig, Credentials | None]:
    """The same again."""
    said = msgspec.json.decode(order, type=_Order, dec_hook=_made)
    return said.config, said.given


def _plain(value: Any) -> str:
    assert isinstance(value, Path | Secret)
    return str(value)


def _made(kind: type, text: Any) -> Any:
    assert kind in (Path, Secret)
    return kind(text)


if __name__ == "__main__":
    sys.exit(main())
