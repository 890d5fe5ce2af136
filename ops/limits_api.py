"""The admin port's routes for buckets, quotas and settings."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel, Field

from gateway.domain.quotas import QUOTA_MAX
from ops.limits import Limit, Limits


class NewQuota(BaseModel, extra="forbid"):
    """Body of PUT …/quota; what is not given is not limited."""

    max_bytes: int | None = Field(default=None, ge=0, le=QUOTA_MAX)
    max_objects: int | None = Field(default=None, ge=0, le=QUOTA_MAX)


class NewSettings(BaseModel, extra="forbid"):
    """Body of PUT /api/v1/settings; what is not given stays."""

    default_encryption: str | None = None
    bucket_metrics: int | None = None


def limits_routes(
    app: FastAPI, limits: Callable[[], Limits], signed: Callable[[Request], Awaitable[None]]
) -> None:
    """Add them to the application."""
    guard = [Depends(signed)]
    of_bucket, of_account = "/api/v1/buckets/{name}/quota", "/api/v1/accounts/{name}/quota"

    @app.get("/api/v1/buckets", dependencies=guard)
    async def list_buckets(after: str = "") -> dict[str, Any]:
        return asdict(await limits().buckets(after))

    @app.get("/api/v1/buckets/{name}", dependencies=guard)
    async def show_bucket(name: Annotated[str, ...]) -> dict[str, Any]:
        return asdict(await limits().bucket(name))

    @app.get(of_bucket, dependencies=guard)
    async def show_bucket_quota(name: Annotated[str, ...]) -> dict[str, Any]:
        return asdict(await limits().bucket_quota(name))

    @app.put(of_bucket, dependencies=guard)
    async def set_bucket_quota(name: Annotated[str, ...], new: NewQuota) -> dict[str, Any]:
        limit = Limit(new.max_bytes, new.max_objects)
        return asdict(await limits().set_bucket_quota(name, limit))

    @app.delete(of_bucket, dependencies=guard)
    async def clear_bucket_quota(name: Annotated[str, ...]) -> dict[str, Any]:
        return asdict(await limits().set_bucket_quota(name, None))

    @app.get(of_account, dependencies=guard)
    async def show_account_quota(name: Annotated[str, ...]) -> dict[str, Any]:
        return asdict(await limits().account_quota(name))

    @app.put(of_account, dependencies=guard)
    async def set_account_quota(name: Annotated[str, ...], new: NewQuota) -> dict[str, Any]:
        limit = Limit(new.max_bytes, new.max_objects)
        return asdict(await limits().set_account_quota(name, limit))

    @app.delete(of_account, dependencies=guard)
    async def clear_account_quota(name: Annotated[str, ...]) -> dict[str, Any]:
        return asdict(await limits().set_account_quota(name, None))

    @app.get("/api/v1/settings", dependencies=guard)
    async def show_settings() -> dict[str, Any]:
        return asdict(await limits().settings())

    @app.put("/api/v1/settings", dependencies=guard)
    async def change_settings(new: NewSettings) -> dict[str, Any]:
        return asdict(await limits().set_settings(new.default_encryption, new.bucket_metrics))
