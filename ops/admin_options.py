"""Options that the commands of `ostraka admin` share."""

from pathlib import Path
from typing import Annotated, Any, Final, Protocol

import typer

Url = Annotated[str, typer.Option(help="The admin port.")]
Dir = Annotated[
    Path | None, typer.Option("--dir", help="The store's folder, for its root credentials.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
URL_DEFAULT: Final = "http://127.0.0.1:9001"


class Ask(Protocol):
    """How commands ask the admin port: a signed request; ends the command when it is refused."""

    def __call__(
        self,
        url: str,
        directory: Path | None,
        method: str,
        path: str,
        document: dict[str, Any] | None = None,
    ) -> Any:
        """The decoded answer."""
        ...
