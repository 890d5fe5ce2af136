"""The admin port: health and metrics for everyone, status and accounts for root."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Protocol

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, Field

from ops.admin_errors import AdminError
from ops.limits import Limits
from ops.limits_api import limits_routes
from ops.lost_objects import LostObjects
from ops.metrics import StoreCounts, render
from ops.object_locate import ObjectShards
from ops.scheme_api import Schemes, scheme_routes
from storage_node.port import DriveReport

DOCUMENT_SIZE_BYTES_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class Status:
    """What `/api/v1/status` tells. `state`: ok, degraded (loss tolerated, but less than the scheme
    promises), read-only (fewer than m + 1 drives) or unavailable. Of a cluster also: the map's epoch,
    whether shards move, and what the leaders of the duties published."""

    state: str
    drives: tuple[DriveReport, ...]
    repairs_pending: int
    orphan_shards: int
    tolerance: int
    epoch: int = 0
    moving: bool = False
    duties: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Account:
    """An account as operators see it; `secret_key` only when it was just made."""

    name: str
    email: str
    account_id: str
    canonical_id: str
    access_key: str
    secret_key: str = ""


@dataclass(frozen=True, slots=True)
class MasterKey:
    """A master key of the local key ring as operators see it; times in ms since the epoch."""

    key_id: str
    versions: int
    created_ms: int
    rotated_ms: int


class Backend(Protocol):
    """What the admin port asks of its process."""

    @property
    def schemes(self) -> Schemes:
        """The schemes of storage classes and buckets. Raises AdminError."""
        ...

    async def ready(self) -> bool:
        """Is the write quorum reachable."""
        ...

    async def counts(self) -> StoreCounts:
        """Everything for /metrics."""
        ...

    async def status(self) -> Status:
        """Everything for /api/v1/status."""
        ...

    async def create_account(
        self, name: str, email: str, access_key: str | None, secret_key: str | None
    ) -> Account:
        """Raises AdminError."""
        ...

    async def list_accounts(self) -> list[Account]:
        """All accounts, without secrets."""
        ...

    async def delete_account(self, name: str) -> None:
        """Raises AdminError."""
        ...

    async def iam(self, account: str, action: str, parameters: dict[str, str]) -> dict[str, Any]:
        """An action of IAM as an account's root. Raises AdminError."""
        ...

    @property
    def limits(self) -> Limits:
        """Buckets, quotas and settings. Raises AdminError."""
        ...

    @property
    def lost_objects(self) -> LostObjects:
        """Which objects cannot be read. Raises AdminError."""
        ...

    @property
    def object_shards(self) -> ObjectShards:
        """Where an object's shards are, and whether they are whole. Raises AdminError."""
        ...

    async def create_kms_key(self, key_id: str) -> MasterKey:
        """Raises AdminError."""
        ...

    async def list_kms_keys(self) -> list[MasterKey]:
        """All master keys."""
        ...

    async def rotate_kms_key(self, key_id: str) -> MasterKey:
        """Raises AdminError."""
        ...


Authorize = Callable[[str, bytes, bytes, dict[str, str], bytes], Awaitable[None]]
"""Method, raw path, raw query, headers, body: raises AdminError unless root signed the request."""


AdminApplication = FastAPI
"""What an admin port serves."""


class NewAccount(BaseModel, extra="forbid"):
    """Body of POST /api/v1/accounts."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9+=,.@_-]+$")
    email: str = Field(default="", max_length=254)
    access_key: str | None = Field(default=None, min_length=3, max_length=128)
    secret_key: str | None = Field(default=None, min_length=8, max_length=128)


class IamCall(BaseModel, extra="forbid"):
    """Body of POST /api/v1/iam: an action of IAM's query API and its parameters."""

    account: str = Field(min_length=1, max_length=64)
    action: str = Field(min_length=1, max_length=128)
    parameters: dict[str, str] = Field(default_factory=dict)


class NewMasterKey(BaseModel, extra="forbid"):
    """Body of POST /api/v1/kms-keys."""

    key_id: str = Field(min_length=1, max_length=128)


def admin_app(backend: Backend, authorize: Authorize) -> FastAPI:
    """The FastAPI application of the admin port."""
    app = FastAPI(title="Ostraka admin", docs_url=None, redoc_url=None, openapi_url=None)

    async def signed(request: Request) -> None:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > DOCUMENT_SIZE_BYTES_MAX:
                raise AdminError(413, "EntityTooLarge", "The request is too large.")
        request._body = body  # noqa: SLF001 - Starlette's cache, so that FastAPI can read it again
        headers = {name.lower(): value for name, value in request.headers.items()}
        raw_path = request.scope.get("raw_path") or request.url.path.encode()
        await authorize(request.method, raw_path, request.scope["query_string"], headers, body)

    @app.exception_handler(AdminError)
    async def refused(_: Request, error: AdminError) -> Response:
        from fastapi.responses import JSONResponse

        return JSONResponse({"code": error.code, "message": error.message}, error.status)

    async def metrics() -> bytes:
        return render(await backend.counts())

    _health_routes(app, backend.ready, metrics)
    _api_routes(app, backend, signed)
    _kms_routes(app, backend, signed)
    scheme_routes(app, lambda: backend.schemes, [Depends(signed)])
    limits_routes(app, lambda: backend.limits, signed)
    return app


def health_app(
    ready: Callable[[], Awaitable[bool]], metrics: Callable[[], Awaitable[bytes]]
) -> FastAPI:
    """What a process tells everybody who asks, and nothing else."""
    app = FastAPI(title="Ostraka", docs_url=None, redoc_url=None, openapi_url=None)
    _health_routes(app, ready, metrics, "not registered, or no drive serves")
    return app


def _health_routes(
    app: FastAPI,
    is_ready: Callable[[], Awaitable[bool]],
    exposition: Callable[[], Awaitable[bytes]],
    unready: str = "the write quorum cannot be reached",
) -> None:
    @app.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/health/ready")
    async def ready() -> dict[str, str]:
        if not await is_ready():
            raise HTTPException(503, unready)
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(await exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _api_routes(
    app: FastAPI, backend: Backend, signed: Callable[[Request], Awaitable[None]]
) -> None:
    guard = [Depends(signed)]

    @app.get("/api/v1/status", dependencies=guard)
    async def status() -> dict[str, Any]:
        now = await backend.status()
        return {
            "state": now.state,
            "drives": [
                {
                    "path": drive.path,
                    "id": drive.drive.hex(),
                    "state": drive.condition.value,
                    "capacity_bytes": drive.capacity_bytes,
                    "free_bytes": drive.free_bytes,
                    "reason": drive.reason,
                }
                for drive in now.drives
            ],
            "repairs_pending": now.repairs_pending,
            "orphan_shards": now.orphan_shards,
            "tolerance": now.tolerance,
            "epoch": now.epoch,
            "moving": now.moving,
            "duties": now.duties,
        }

    @app.get("/api/v1/lost-objects", dependencies=guard)
    async def lost_objects(after: str = "", bucket: str = "", prefix: str = "") -> dict[str, Any]:
        return asdict(await backend.lost_objects.page(after, bucket, prefix))

    @app.get("/api/v1/object-shards", dependencies=guard)
    async def object_shards(
        bucket: str, key: str, version_id: str = "", after: str = ""
    ) -> dict[str, Any]:
        return asdict(await backend.object_shards.page(bucket, key, version_id, after))

    @app.get("/api/v1/accounts", dependencies=guard)
    async def list_accounts() -> list[dict[str, str]]:
        return [_shown(account) for account in await backend.list_accounts()]

    @app.post("/api/v1/accounts", dependencies=guard, status_code=201)
    async def create_account(new: NewAccount) -> dict[str, str]:
        made = await backend.create_account(new.name, new.email, new.access_key, new.secret_key)
        return _shown(made) | {"secret_key": made.secret_key}

    @app.delete("/api/v1/accounts/{name}", dependencies=guard, status_code=204)
    async def delete_account(name: Annotated[str, ...]) -> None:
        await backend.delete_account(name)

    @app.post("/api/v1/iam", dependencies=guard)
    async def iam(asked: IamCall) -> dict[str, Any]:
        return await backend.iam(asked.account, asked.action, asked.parameters)


def _kms_routes(
    app: FastAPI, backend: Backend, signed: Callable[[Request], Awaitable[None]]
) -> None:
    guard = [Depends(signed)]

    @app.get("/api/v1/kms-keys", dependencies=guard)
    async def list_kms_keys() -> list[dict[str, Any]]:
        return [asdict(key) for key in await backend.list_kms_keys()]

    @app.post("/api/v1/kms-keys", dependencies=guard, status_code=201)
    async def create_kms_key(new: NewMasterKey) -> dict[str, Any]:
        return asdict(await backend.create_kms_key(new.key_id))

    @app.post("/api/v1/kms-key-rotations", dependencies=guard, status_code=201)
    async def rotate_kms_key(named: NewMasterKey) -> dict[str, Any]:
        return asdict(await backend.rotate_kms_key(named.key_id))


def _shown(account: Account) -> dict[str, str]:
    return {
        "name": account.name,
        "email": account.email,
        "account_id": account.account_id,
        "canonical_id": account.canonical_id,
        "access_key": account.access_key,
    }
