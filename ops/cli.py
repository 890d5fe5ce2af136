"""The command line: `ostraka serve` and `ostraka admin …`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ops import cluster_cli
from ops.config import ConfigError, ServeConfig, credentials_from, drive_settings
from placement.schemes import Scheme

app = typer.Typer(
    name="ostraka",
    help="An S3-compatible object store with erasure coding.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _fail(error: Exception) -> typer.Exit:
    typer.echo(f"ostraka: {error}", err=True)
    return typer.Exit(2)


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
    port: Annotated[int, typer.Option(help="S3 port.")] = 9000,
    admin_port: Annotated[int, typer.Option(help="Health, metrics and admin API.")] = 9001,
    website_port: Annotated[
        int | None, typer.Option(help="Buckets' websites, for browsers. Default: none.")
    ] = None,
    bind: Annotated[str, typer.Option(help="Address of all ports.")] = "127.0.0.1",
    region: Annotated[str, typer.Option(help="Region that clients sign for.")] = "us-east-1",
    workers: Annotated[
        int | None, typer.Option(help="Gateway processes (default: one a core).")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key, PEM.")] = None,
    domain: Annotated[
        list[str] | None, typer.Option(help="Serve BUCKET.DOMAIN as virtual hosts; repeatable.")
    ] = None,
    access_log: Annotated[
        str, typer.Option(metavar="FILE", help="Append one line a request; '-' for stdout.")
    ] = "",
    encrypt_at_rest: Annotated[
        bool, typer.Option(help="Encrypt new objects that nobody asked to encrypt, too.")
    ] = False,
    customer_keys_over_http: Annotated[
        bool, typer.Option(help="Take SSE-C keys without TLS: for a proxy in front that ends it.")
    ] = False,
    vault: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON: HashiCorp Vault's transit keys for SSE-KMS."),
    ] = None,
) -> None:
    """Run a whole store on this machine, in the foreground."""
    from ops.serve import serve as run  # other commands need none of it
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
        raise _fail(error) from None
    raise typer.Exit(run(config, credentials))


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
