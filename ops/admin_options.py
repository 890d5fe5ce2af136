"""Options that the commands of `ostraka admin` share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Protocol
from urllib.parse import quote, urlencode

import typer

Url = Annotated[str, typer.Option(help="The admin port.")]
Dir = Annotated[
    Path | None, typer.Option("--dir", help="The store's folder, for its root credentials.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
URL_DEFAULT: Final = "http://127.0.0.1:9001"
TIMEOUT_SECONDS: Final = 30.0
"""How long an answer may take to come, where a command knows of no reason for more."""


def with_query(path: str, parameters: Mapping[str, str]) -> str:
    """The path of a request with parameters, encoded as its signature demands: a space is %20."""
    return f"{path}?{urlencode(parameters, quote_via=quote)}"


class Ask(Protocol):
    """How commands ask the admin port: a signed request; ends the command when it is refused."""

    def __call__(
        self,
        url: str,
        directory: Path | None,
        method: str,
        path: str,
        document: dict[str, Any] | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Any:
        """The decoded answer."""
        ...
