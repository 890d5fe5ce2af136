"""The admin port's routes for schemes: of storage classes, and of buckets."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fastapi import FastAPI
from fastapi.params import Depends
from pydantic import BaseModel, Field


class Schemes(Protocol):
    """What the routes ask for (`ops.storage_schemes.StorageSchemes`). Everything raises
    AdminError."""

    async def classes(self) -> dict[str, Any]:
        """The default scheme, and those of storage classes."""
        ...

    async def set_class(self, name: str, scheme: str) -> dict[str, Any]:
        """Give a storage class a scheme."""
        ...

    async def unset_class(self, name: str) -> dict[str, Any]:
        """Take it away."""
        ...

    async def bucket(self, name: str) -> dict[str, Any]:
        """The scheme of a bucket."""
        ...

    async def set_bucket(self, name: str, scheme: str) -> dict[str, Any]:
        """Give a bucket one; "" takes it away."""
        ...


class NamedScheme(BaseModel, extra="forbid"):
    """Body of PUT: a scheme in the form K+M; of a bucket also "", the default one."""

    scheme: str = Field(max_length=5)


def scheme_routes(app: FastAPI, schemes: Callable[[], Schemes], guard: Sequence[Depends]) -> None:
    """Add the routes; `schemes` is asked for at each request."""

    @app.get("/api/v1/storage-classes", dependencies=guard)
    async def list_classes() -> dict[str, Any]:
        return await schemes().classes()

    @app.put("/api/v1/storage-classes/{name}", dependencies=guard)
    async def set_class(name: str, asked: NamedScheme) -> dict[str, Any]:
        return await schemes().set_class(name, asked.scheme)

    @app.delete("/api/v1/storage-classes/{name}", dependencies=guard)
    async def unset_class(name: str) -> dict[str, Any]:
        return await schemes().unset_class(name)

    @app.get("/api/v1/bucket-schemes/{bucket}", dependencies=guard)
    async def bucket_scheme(bucket: str) -> dict[str, Any]:
        return await schemes().bucket(bucket)

    @app.put("/api/v1/bucket-schemes/{bucket}", dependencies=guard)
    async def set_bucket_scheme(bucket: str, asked: NamedScheme) -> dict[str, Any]:
        return await schemes().set_bucket(bucket, asked.scheme)
