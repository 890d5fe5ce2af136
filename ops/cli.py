"""The command line: `ostraka serve` and `ostraka admin …`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ops import cluster_cli
from ops.config import ConfigError, ServeConfig, credentials_from, drive_settings
from ops.port_options import (
    AccessLog,
    AdminPort,
    Bind,
    Domain,
    EncryptAtRest,
    Port,
    Region,
    TlsCert,
    TlsKey,
    Vault,
    WebsitePort,
    Workers,
)
from placement.schemes import Scheme

app = typer.Typer(
    name="ostraka",
    help="An S3-compatible object store with erasure coding.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def serve(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Where the store lives.")],
    drives: Annotated[
        int | None, typer.Option(help="Folders drive1 … driveN under DIR (default 6).")
    ] = None,
    drive: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="A drive's mount; repeat for each.")
    ] = None,
    scheme: Annotated[
        str | None, typer.Option(metavar="K+M", help="Default: what the drives allow; 4+2 at six.")
    ] = None,
    port: Port = 9000,
    admin_port: AdminPort = 9001,
    website_port: WebsitePort = None,
    bind: Bind = "127.0.0.1",
    region: Region = "us-east-1",
    workers: Workers = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    domain: Domain = None,
    access_log: AccessLog = "",
    encrypt_at_rest: EncryptAtRest = False,
    customer_keys_over_http: Annotated[
        bool, typer.Option(help="Take SSE-C keys without TLS: for a proxy in front that ends it.")
    ] = False,
    vault: Vault = None,
) -> None:
    """Run a whole store on this machine, in the foreground."""
    from ops.serving import become_supervisor  # other commands need none of it
    from ops.vault_file import read_vault_file

    try:
        credentials = credentials_from(os.environ)
        config = ServeConfig(
            directory=_folder(directory),
            drives=drive_settings(_folder(directory), drives, tuple(drive or ())),
            scheme=Scheme.parse(scheme) if scheme else None,
            bind=bind,
            port=port,
            admin_port=admin_port,
            website_port=website_port,
            region=region,
            tls_cert=tls_cert,
            tls_key=tls_key,
            domains=tuple(domain or ()),
            access_log=access_log,
            encrypt_at_rest=encrypt_at_rest,
            customer_keys_over_http=customer_keys_over_http,
            vault=read_vault_file(vault),
            **({"workers": workers} if workers is not None else {}),
        )
    except (ConfigError, ValueError) as error:
        raise cluster_cli.refuse(error) from None
    become_supervisor(config, credentials)


app.command("node")(cluster_cli.node)
app.command("gateway")(cluster_cli.gateway)
app.command("keeper")(cluster_cli.keeper)


def _folder(directory: str) -> Path:
    if not directory or "\0" in directory:
        raise ConfigError("DIR must name a folder")
    return Path(directory).absolute()


def main() -> None:
    """Entry point of the `ostraka` script."""
    if len(sys.argv) > 1 and sys.argv[1] == "admin":
        from ops.admin_cli import admin  # loads rich and the HTTP client

        app.add_typer(admin, name="admin")
    else:
        app.add_typer(typer.Typer(help="Operator commands."), name="admin")
    app()
