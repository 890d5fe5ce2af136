"""Erasure-coding schemes: how many data and parity fragments, and the widths that fit fewer drives."""

import re
from dataclasses import dataclass

STRIPE_SIZE_BYTES = 1 << 20
"""Plain bytes in a full stripe."""

_FORM = re.compile(r"([0-9]{1,2})\+([0-9]{1,2})")


@dataclass(frozen=True, slots=True)
class Scheme:
    """`k` data and `m` parity fragments a stripe. With k = 1 every fragment is a whole copy."""

    k: int
    m: int
    stripe_size_bytes: int = STRIPE_SIZE_BYTES

    def __post_init__(self) -> None:
        """Refuse what the codec or the formats cannot carry."""
        if not (1 <= self.k <= 32 and 0 <= self.m <= 16 and self.stripe_size_bytes > 0):
            raise ValueError(f"unsupported scheme {self.k}+{self.m}")

    def __str__(self) -> str:
        return f"{self.k}+{self.m}"

    @property
    def width(self) -> int:
        """Fragments a stripe, k + m."""
        return self.k + self.m

    @property
    def copies(self) -> "Scheme":
        """The scheme of small objects: m + 1 whole copies, of the same tolerance."""
        return Scheme(1, self.m, self.stripe_size_bytes)

    @classmethod
    def parse(cls, text: str) -> "Scheme":
        """Read "4+2"; raises ValueError otherwise."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"a scheme reads K+M, like 4+2, not {text!r}")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Schemes:
    """What new blobs are stored under: the default scheme, and that of each storage class that has
    one."""

    default: Scheme
    classes: tuple[tuple[str, Scheme], ...] = ()

    def of_class(self, name: str) -> Scheme | None:
        """The scheme of a storage class; None for one that was given none."""
        return next((scheme for known, scheme in self.classes if known == name), None)

    @property
    def tolerance(self) -> int:
        """Drives that may fail without loss, whichever of them an object is stored under."""
        return min((self.default.m, *(scheme.m for _, scheme in self.classes)))


def widest_that_fits(scheme: Scheme, live_drives: int) -> Scheme | None:
    """The widest scheme with the same m on that many drives: 4+2 → 3+2 → 2+2 → m + 1 copies.

    None when fewer than m + 1 drives are live: then nothing may be acknowledged.
    """
    if live_drives < scheme.m + 1:
        return None
    if live_drives >= scheme.width:
        return scheme
    return Scheme(live_drives - scheme.m, scheme.m, scheme.stripe_size_bytes)


def default_scheme(drives: int) -> Scheme:
    """What `serve` picks when no scheme is named: the tolerance a person would expect of N drives."""
    table = {1: (1, 0), 2: (1, 1), 3: (2, 1), 4: (2, 2), 5: (3, 2)}
    if drives in table:
        return Scheme(*table[drives])
    if drives < 12:
        return Scheme(4, 2)
    return Scheme(8, 3) if drives < 14 else Scheme(10, 4)
