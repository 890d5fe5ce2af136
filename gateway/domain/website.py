"""Websites of buckets: which key a path means, and where requests are sent instead.

Source: S3 User Guide, "Hosting a static website using Amazon S3": index documents, custom errors,
"Configuring a webpage redirect" (routing rules).
"""

from typing import Final
from urllib.parse import quote

import msgspec

MOVED: Final = 301
_SAFE: Final = "/-_.~!$&'()*+,;=:@"


class Redirect(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """Where a request is sent; "" and None stand for what the request itself says. Stored: fields
    are only appended."""

    host: str = ""
    protocol: str = ""
    code: int = MOVED
    prefix: str | None = None  # in place of the prefix that the rule asks for
    key: str | None = None  # in place of the whole key


class RoutingRule(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """A redirect and its conditions. With a `status`, only answers with that error are redirected."""

    redirect: Redirect
    prefix: str | None = None
    status: int | None = None


class Website(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """A bucket's website: `redirect_all`, or an index with the rest."""

    redirect_all: Redirect | None = None
    index_suffix: str = ""
    error_key: str = ""
    rules: tuple[RoutingRule, ...] = ()


def document_key(website: Website, key: str) -> str:
    """The object that a path means: a folder's is its index document."""
    return key + website.index_suffix if not key or key.endswith("/") else key


def routed(website: Website, key: str, status: int | None = None) -> RoutingRule | None:
    """The first rule for a key: before it is looked up (no status), or after that failed."""
    for rule in website.rules:
        if rule.status == status and key.startswith(rule.prefix or ""):
            return rule
    return None


def location_of(rule: RoutingRule, key: str, *, protocol: str, host: str) -> str:
    """The URL that a rule sends a request to, which came by that protocol to that host."""
    redirect = rule.redirect
    if redirect.key is not None:
        key = redirect.key
    elif redirect.prefix is not None:
        key = redirect.prefix + key[len(rule.prefix or "") :]
    target = f"{redirect.protocol or protocol}://{redirect.host or host}"
    return f"{target}/{quote(key, safe=_SAFE)}"


def folder_location(key: str) -> str:
    """Where a folder that was asked for without its slash is."""
    return f"/{quote(key, safe=_SAFE)}/"
