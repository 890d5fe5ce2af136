"""Options that `ostraka serve` and `ostraka gateway` share: the ports and what is served on them."""

from pathlib import Path
from typing import Annotated

import typer

Port = Annotated[int, typer.Option(help="S3 port.")]
AdminPort = Annotated[int, typer.Option(help="Health, metrics and admin API.")]
WebsitePort = Annotated[
    int | None, typer.Option(help="Buckets' websites, for browsers. Default: none.")
]
Bind = Annotated[str, typer.Option(help="Address of all ports.")]
Region = Annotated[str, typer.Option(help="Region that clients sign for.")]
Workers = Annotated[int | None, typer.Option(help="Gateway processes (default: one a core).")]
TlsCert = Annotated[Path | None, typer.Option(help="Certificate chain, PEM.")]
TlsKey = Annotated[Path | None, typer.Option(help="Private key, PEM.")]
Domain = Annotated[
    list[str] | None, typer.Option(help="Serve BUCKET.DOMAIN as virtual hosts; repeatable.")
]
AccessLog = Annotated[
    str, typer.Option(metavar="FILE", help="Append one line a request; '-' for stdout.")
]
EncryptAtRest = Annotated[
    bool, typer.Option(help="Encrypt new objects that nobody asked to encrypt, too.")
]
Vault = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="JSON: HashiCorp Vault's transit keys for SSE-KMS."),
]
