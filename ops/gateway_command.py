"""`ostraka gateway`: S3 workers and their admin process under a supervisor. It keeps nothing."""

import shutil
import signal
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ops.config import ConfigError, ServeConfig
from ops.serve import complain, say, say_websites
from ops.settings import ClusterSettings, ProcessSettings
from ops.supervisor import (
    Child,
    StartFailed,
    Supervisor,
    listening_socket,
    listening_sockets,
)


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """The ports' options are those of `serve`, whose folder and drives are not used.
    `leave_seconds`: between saying that it is not ready any more and taking no more connections."""

    cluster: ClusterSettings
    ports: ServeConfig
    leave_seconds: float = 0.0


def gateway(options: GatewayOptions) -> int:
    """Run in the foreground until SIGINT or SIGTERM; the exit status."""
    config = options.ports
    try:
        listeners = listening_sockets(config.bind, config.port, config.workers)
        port = listeners[0].getsockname()[1]
        websites: list[socket.socket] = []
        if config.website_port is not None:
            websites = listening_sockets(config.bind, config.website_port, config.workers)
        admin = listening_socket(config.bind, config.admin_port)
    except OSError as error:
        complain(f"cannot listen on {config.bind}: {error.strerror}")
        return 1
    run = tempfile.mkdtemp(prefix="ostraka-gateway-")
    children = [Child("admin", _settings(options, run, "admin", admin_fd=admin.fileno()), ())]
    children[0].descriptors = (admin.fileno(),)
    for number, listener in enumerate(listeners):
        fd = listener.fileno()
        website = websites[number].fileno() if websites else -1
        worker = _settings(options, run, "worker", number, listen_fd=fd, website_fd=website)
        children.append(Child(f"worker {number}", worker, (fd, website) if websites else (fd,)))
    supervisor = Supervisor(children, complain, start_timeout_seconds=None)
    try:
        scheme = "https" if config.tls_cert else "http"
        say(f"admin {scheme}://{config.bind}:{admin.getsockname()[1]} (health, metrics)")
        supervisor.start()
        if websites:
            say_websites(config, websites[0])
        say(f"ready {scheme}://{config.bind}:{port}")
        supervisor.run()
        say("stopping")
        supervisor.tell("admin", signal.SIGUSR1)
        time.sleep(options.leave_seconds)
        return 0
    except StartFailed as error:
        if str(error) != "interrupted while starting":
            complain(str(error))
            return 1
        return 0
    finally:
        supervisor.stop()
        shutil.rmtree(run, ignore_errors=True)


def _settings(
    options: GatewayOptions,
    run: str,
    role: str,
    number: int = 0,
    *,
    listen_fd: int = -1,
    admin_fd: int = -1,
    website_fd: int = -1,
) -> ProcessSettings:
    config = options.ports
    return ProcessSettings(
        role=role,
        number=number,
        directory="",
        run=run,
        cluster_id=b"",
        cluster_key=options.cluster.cluster_key,
        is_new=False,
        drives=[],
        scheme=None,
        region=config.region,
        domains=list(config.domains),
        bind=config.bind,
        root_access_key="",
        root_secret_key="",
        workers=config.workers,
        listen_fd=listen_fd,
        admin_fd=admin_fd,
        website_fd=website_fd,
        tls_cert=str(config.tls_cert.absolute()) if config.tls_cert else "",
        tls_key=str(config.tls_key.absolute()) if config.tls_key else "",
        access_log=config.access_log,
        encrypt_at_rest=config.encrypt_at_rest,
        customer_keys_over_http=config.customer_keys_over_http,
        vault=config.vault,
        cluster=options.cluster,
    )


def ports_of(**options: object) -> ServeConfig:
    """`serve`'s checks of the options that both have. Raises ConfigError."""
    try:
        return ServeConfig(directory=Path(), **options)  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigError(str(error)) from error
