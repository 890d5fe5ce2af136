"""`ostraka serve DIR`: from options to a running store, and its first words to a person."""

import os
import socket
import sys
from pathlib import Path

from ops.config import ConfigError, Credentials, ServeConfig, scheme_for
from ops.directory import (
    Directory,
    DirectoryRefused,
    open_directory,
    root_credentials,
    write_marker,
)
from ops.settings import DriveEntry, ProcessSettings
from ops.supervisor import (
    Child,
    StartFailed,
    Supervisor,
    listening_socket,
    listening_sockets,
)
from placement.clock import SystemRandomness


def say(words: str) -> None:
    """One line to the person at the terminal."""
    print(words, flush=True)  # noqa: T201 - this is the program's output


def complain(words: str) -> None:
    """One line to standard error."""
    print(f"ostraka: {words}", file=sys.stderr, flush=True)  # noqa: T201


def serve(config: ServeConfig, given: Credentials | None) -> int:
    """Run the store in the foreground until SIGINT or SIGTERM; the exit status."""
    randomness = SystemRandomness()
    try:
        directory = open_directory(config.directory.absolute(), config.drives, randomness)
        scheme = scheme_for(config.scheme, len(directory.drives))
        credentials, fresh = root_credentials(directory, given, randomness)
    except (DirectoryRefused, ConfigError) as error:
        complain(str(error))
        return 1
    except OSError as error:
        complain(f"{error.filename or config.directory} cannot be used: {error.strerror}")
        return 1
    port = config.admin_port
    try:
        admin = listening_socket(config.bind, port)
        port = config.port
        websites: list[socket.socket] = []
        if config.website_port is not None:
            port = config.website_port
            websites = listening_sockets(config.bind, port, config.workers)
        port = config.port
        listeners = listening_sockets(config.bind, port, config.workers)
        port = listeners[0].getsockname()[1]
    except OSError as error:
        complain(f"cannot listen on {config.bind}, port {port}: {error.strerror}")
        return 1
    children = _children(
        config,
        directory,
        credentials,
        [s.fileno() for s in listeners],
        admin.fileno(),
        [s.fileno() for s in websites],
    )
    # Before anything is written under it: the cluster's id must outlive a first start that fails.
    supervisor = Supervisor(children, complain)
    try:
        if directory.is_new:
            write_marker(directory)
        supervisor.start()
        if config.drives:
            write_marker(directory)  # drives that were added count once they are in use
    except StartFailed as error:
        supervisor.stop()
        complain(str(error))
        return 1
    except OSError as error:
        supervisor.stop()
        complain(f"{error.filename or directory.path} cannot be used: {error.strerror}")
        return 1
    if directory.is_new:
        say(f"new store in {directory.path}: {len(directory.drives)} drives, scheme {scheme}")
        if scheme.m == 0:
            say("warning: one drive has no redundancy: losing it loses everything")
    if websites:
        say_websites(config, websites[0])
    kept = None if given is not None else directory.path / "credentials.json"
    _welcome(config, port, admin.getsockname()[1], credentials, kept, fresh=fresh)
    supervisor.run()
    say("stopping")
    supervisor.stop()
    return 0


def say_websites(config: ServeConfig, listener: socket.socket) -> None:
    """Where browsers find websites."""
    scheme = "https" if config.tls_cert else "http"
    say(f"websites {scheme}://{config.bind}:{listener.getsockname()[1]}")


def _children(
    config: ServeConfig,
    directory: Directory,
    credentials: Credentials,
    listeners: list[int],
    admin: int,
    websites: list[int],
) -> list[Child]:
    def settings(
        role: str, number: int = 0, listen: int = -1, admin: int = -1, website: int = -1
    ) -> ProcessSettings:
        return ProcessSettings(
            role=role,
            number=number,
            directory=str(directory.path),
            run=_short_run_path(directory),
            cluster_id=directory.cluster_id,
            cluster_key=directory.cluster_key,
            is_new=directory.is_new,
            drives=[DriveEntry(d.path, d.may_adopt) for d in directory.drives],
            scheme=(config.scheme.k, config.scheme.m) if config.scheme else None,
            region=config.region,
            domains=list(config.domains),
            bind=config.bind,
            root_access_key=credentials.access_key,
            root_secret_key=str(credentials.secret_key),
            workers=config.workers,
            listen_fd=listen,
            admin_fd=admin,
            website_fd=website,
            tls_cert=str(config.tls_cert.absolute()) if config.tls_cert else "",
            tls_key=str(config.tls_key.absolute()) if config.tls_key else "",
            access_log=config.access_log,
            encrypt_at_rest=config.encrypt_at_rest,
            customer_keys_over_http=config.customer_keys_over_http,
            vault=config.vault,
        )

    # Every process inherits the lock: DIR is held until the last of them has ended.
    lock = directory.lock
    children = [Child("storage", settings("storage"), (lock,))]
    for number, fd in enumerate(listeners):
        website = websites[number] if websites else -1
        descriptors = (lock, fd, website) if websites else (lock, fd)
        worker = settings("worker", number, listen=fd, website=website)
        children.append(Child(f"worker {number}", worker, descriptors))
    children.append(Child("keeper", settings("keeper", admin=admin), (lock, admin)))
    return children


def _short_run_path(directory: Directory) -> str:
    # The kernel allows 107 bytes for a Unix socket's path; a deep DIR is reached by /proc instead.
    path = str(directory.run)
    if len(os.fsencode(path)) <= 80:
        return path
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def _welcome(
    config: ServeConfig,
    port: int,
    admin_port: int,
    credentials: Credentials,
    kept: Path | None,
    *,
    fresh: bool,
) -> None:
    host = "127.0.0.1" if config.bind in ("0.0.0.0", "::") else config.bind  # noqa: S104
    if ":" in host:
        host = f"[{host}]"
    scheme = "https" if config.tls_cert else "http"
    url = f"{scheme}://{host}:{port}"
    if fresh:
        say(f"root credentials, shown once (kept in {kept}):")
        say(f"  access key  {credentials.access_key}")
        say(f"  secret key  {credentials.secret_key!s}")
    say(f"ready {url}")
    say(f"admin {scheme}://{host}:{admin_port} (health, metrics)")
    # Also of a start after one that failed before it could show them.
    place = "" if kept is None else f" (the secret key is in {kept})"
    say(f"use it with the aws CLI{place}:")
    say(f"  export AWS_ACCESS_KEY_ID={credentials.access_key} AWS_SECRET_ACCESS_KEY=…")
    say(f"  export AWS_DEFAULT_REGION={config.region} AWS_ENDPOINT_URL={url}")
    say("  aws s3 mb s3://my-bucket")
