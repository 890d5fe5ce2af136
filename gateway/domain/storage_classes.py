"""Storage classes: which names an operator may give a scheme, and where the objects of one go.

A class is an erasure-coding scheme: it says how many drives keep an object and how many of them may
be lost. STANDARD is the bucket's scheme, or the default one. Source: Amazon S3 User Guide,
"Understanding and managing Amazon S3 storage classes".
"""

import re
from typing import Final, NamedTuple

from gateway.domain.write_plan import scheme_for
from placement.schemes import Scheme, Schemes

STANDARD: Final = "STANDARD"
WATERFALL: Final = (
    *("STANDARD_IA", "INTELLIGENT_TIERING", "ONEZONE_IA", "GLACIER_IR"),
    *("GLACIER", "DEEP_ARCHIVE"),
)
"""The classes of S3 that lifecycle rules move objects to; none is ever moved against this order.
Source: the User Guide's "Transitioning objects using Amazon S3 Lifecycle"."""
ARCHIVES: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""What is in them can be read only after RestoreObject."""
_ELSEWHERE: Final = frozenset({"OUTPOSTS", "SNOW", "EXPRESS_ONEZONE", "FSX_OPENZFS", "FSX_ONTAP"})
_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,31}")

SchemeOf = tuple[int, int]
"""A scheme as records name it: k and m."""


class Kept(NamedTuple):
    """How an object is kept: `storage_class` "" is STANDARD; `scheme` None the default one."""

    storage_class: str = ""
    scheme: Scheme | None = None

    @property
    def named(self) -> SchemeOf | None:
        """The scheme as a record names it."""
        return None if self.scheme is None else (self.scheme.k, self.scheme.m)


class ClassNotMapped(ValueError):
    """The storage class was given no scheme."""


def why_not_offered(name: str) -> str | None:
    """Why no store of this kind has such a storage class, in a sentence; None if it may have."""
    if name in ARCHIVES:
        return f"{name} needs objects to be restored before they are read, which is not offered"
    if name in _ELSEWHERE:
        return f"{name} names storage of another kind, which is not offered"
    return None


def why_not_mapped(name: str) -> str | None:
    """Why an operator cannot give that class a scheme; None if it can be done."""
    if name == STANDARD:
        return "STANDARD is stored under the bucket's scheme, or the default one"
    if _NAME.fullmatch(name) is None:
        return (
            "the name of a storage class begins with a capital letter and goes on with at most 31"
            " capital letters, digits and underscores"
        )
    return why_not_offered(name)


def kept_as(storage_class: str, bucket_scheme: SchemeOf | None, schemes: Schemes) -> Kept:
    """How a new object is kept in a bucket. `storage_class` "" is STANDARD. Raises ClassNotMapped."""
    if storage_class:
        scheme = schemes.of_class(storage_class)
        if scheme is None:
            raise ClassNotMapped(storage_class)
        return Kept(storage_class, scheme)
    return Kept("", scheme_named(bucket_scheme))


def scheme_named(named: SchemeOf | None) -> Scheme | None:
    """The scheme that a record names; None for the default one."""
    return None if named is None else Scheme(*named)


class StoredAs(NamedTuple):
    """How a blob lies on the drives."""

    scheme: Scheme
    size_bytes: int


def stays_put(kept: Kept, named: SchemeOf | None, blob: StoredAs | None, schemes: Schemes) -> bool:
    """Whether an object whose record names that scheme need not be stored again to be kept so.
    `blob` is its only one; None when it has parts. Small blobs are whole copies: of them only m
    tells."""
    wanted, present = kept.scheme or schemes.default, scheme_named(named) or schemes.default
    if wanted == present:
        return True
    if blob is None:
        return False
    target = scheme_for(wanted, blob.size_bytes)
    copies = target.k == blob.scheme.k == 1  # how long their stripes are is of no account
    return target == blob.scheme or (copies and target.m == blob.scheme.m)


def is_narrow(named: SchemeOf | None, blob: StoredAs, schemes: Schemes) -> bool:
    """Whether a blob has fewer data shards than the scheme asks for that its record names."""
    wanted = scheme_named(named) or schemes.default
    return blob.scheme.k < scheme_for(wanted, blob.size_bytes).k
