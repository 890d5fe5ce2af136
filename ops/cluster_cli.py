"""The commands of a cluster's processes: `ostraka node`, `ostraka gateway`, `ostraka keeper`."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from ops.cluster_options import ClusterOptions, in_cluster
from ops.config import NODE_CERT, NODE_KEY, ConfigError
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
from ops.refusal import Refused


def refuse(reason: Exception | str, *, status: int = 2) -> typer.Exit:
    """One sentence to standard error; raise what is returned. Status 2 is for what was asked
    wrongly, 1 for what could not be done."""
    typer.echo(f"ostraka: {reason}", err=True)
    return typer.Exit(status)


def run_until_signal(
    main: Callable[[asyncio.Event, Callable[[str], None]], Awaitable[None]], role: str
) -> None:
    """Run a process's main on uvloop until SIGTERM or SIGINT. Exits with 1 when it refuses."""
    import gc

    import uvloop

    from ops.process import GC_THRESHOLD, settle_memory
    from placement.allocator import tune_allocator

    tune_allocator()
    gc.set_threshold(GC_THRESHOLD, 50, 100)

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        work = asyncio.ensure_future(main(stop, ready))
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not begun and not work.done():
            work.cancel()  # still waiting for etcd: there is nothing to finish
        stopped.cancel()
        try:
            await work
        except asyncio.CancelledError:
            return

    begun: list[str] = []

    def ready(words: str) -> None:
        settle_memory()
        begun.append(words)
        typer.echo(f"ready {words}")

    try:
        uvloop.run(run())
    except Refused as error:
        raise refuse(f"{role}: {error}", status=1) from None


@in_cluster
def node(
    cluster: ClusterOptions,
    drive: Annotated[list[str], typer.Option(metavar="PATH", help="A drive; repeat for each.")],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT")] = "127.0.0.1:9100",
    advertise: Annotated[
        str | None, typer.Option(metavar="HOST", help="How others reach it (default: as listened).")
    ] = None,
    zone: Annotated[str, typer.Option(help="Failure domain above hosts.")] = "default",
    host_label: Annotated[
        str | None, typer.Option(help="Failure domain: this host's name by default.")
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            envvar=NODE_CERT, help="Serve the node's port over TLS: certificate chain, PEM."
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(envvar=NODE_KEY, help="Its private key, PEM.")
    ] = None,
    wire_only: Annotated[
        bool, typer.Option(help="Keep gateways on this host from the drives' files.")
    ] = False,
    admin_port: Annotated[
        int | None, typer.Option(help="Health and metrics, open to all. Default: none.")
    ] = None,
    bind: Annotated[str, typer.Option(help="Address of the admin port.")] = "127.0.0.1",
) -> None:
    """Serve this host's drives to a cluster, in the foreground."""
    from ops.node_process import NodeOptions, absolute_drives, run_node, server_tls
    from ops.supervisor import listening_socket
    from placement.rpc.handshake import parse_address

    try:
        listen_host, listen_port = parse_address(listen)
        if advertise is None and listen_host in ("0.0.0.0", "::"):  # noqa: S104 - refused
            raise ConfigError("--advertise HOST says how others reach a node on every address")
        options = NodeOptions(
            cluster=cluster.settings(),
            drives=absolute_drives(drive),
            listen_host=listen_host,
            listen_port=listen_port,
            advertise_host=advertise or listen_host,
            host=host_label or socket.gethostname(),
            zone=zone,
            tls=server_tls(tls_cert, tls_key),
            wire_only=wire_only,
            admin_listener=None if admin_port is None else listening_socket(bind, admin_port),
        )
    except (ConfigError, ValueError) as error:
        raise refuse(error) from None
    except OSError as error:
        raise refuse(ConfigError(f"cannot listen on {bind}: {error.strerror}")) from None
    run_until_signal(
        lambda stop, ready: run_node(options, stop, lambda n: ready(f"node {n}")), "node"
    )


@in_cluster
def gateway(
    cluster: ClusterOptions,
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
        bool, typer.Option(help="Take customers' keys without TLS (behind a proxy with TLS).")
    ] = False,
    leave_wait: Annotated[
        float, typer.Option(help="Seconds between not being ready and draining, when it stops.")
    ] = 0.0,
    vault: Vault = None,
) -> None:
    """Serve S3 for a cluster, in the foreground. Any number of them may run."""
    from ops.gateway_command import GatewayOptions, ports_of
    from ops.gateway_command import gateway as run
    from ops.vault_file import read_vault_file

    try:
        options = GatewayOptions(
            cluster=cluster.settings(),
            ports=ports_of(
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
            ),
            leave_seconds=min(max(leave_wait, 0.0), 300.0),
        )
    except (ConfigError, ValueError) as error:
        raise refuse(error) from None
    raise typer.Exit(run(options))


@in_cluster
def keeper(
    cluster: ClusterOptions,
    admin_port: Annotated[int, typer.Option(help="Health, metrics and admin API.")] = 9002,
    bind: Annotated[str, typer.Option(help="Its address.")] = "127.0.0.1",
    grace: Annotated[
        float, typer.Option(help="Seconds that a drive may be away before it is put out.")
    ] = 600.0,
) -> None:
    """Do a cluster's background duties, in the foreground. Run two: each duty has one leader."""
    from ops.keeper_command import KeeperOptions, run_cluster_keeper
    from ops.supervisor import listening_socket

    try:
        settings = cluster.settings()
        if grace < 0:
            raise ConfigError("--grace is a number of seconds")
        listener = listening_socket(bind, admin_port)
    except (ConfigError, ValueError) as error:
        raise refuse(error) from None
    except OSError as error:
        raise refuse(ConfigError(f"cannot listen on {bind}: {error.strerror}")) from None
    options = KeeperOptions(settings, listener, grace)
    run_until_signal(lambda stop, ready: run_cluster_keeper(options, stop, ready), "keeper")
