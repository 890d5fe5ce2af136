"""Options that the commands of `ostraka admin` share."""

from pathlib import Path
from typing import Annotated, Final

import typer

Url = Annotated[str, typer.Option(help="The admin port.")]
Dir = Annotated[
    Path | None, typer.Option("--dir", help="The store's folder, for its root credentials.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
URL_DEFAULT: Final = "http://127.0.0.1:9001"
