"""Direct calls into the ISA-L that pyeclib bundles: same bytes, no GIL, no copies, no headers.

Only `placement.codec` uses this; pyeclib stays its reference and its fallback. Matrices and tables
follow what liberasurecode does for `isa_l_rs_cauchy`: a Cauchy matrix over GF(2^8) with the
identity on top, so the tests can demand equality byte for byte.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cffi
import pyeclib_c

_DECLARATIONS = """
void gf_gen_cauchy1_matrix(unsigned char *a, int m, int k);
int gf_invert_matrix(unsigned char *in, unsigned char *out, const int n);
unsigned char gf_mul(unsigned char a, unsigned char b);
void ec_init_tables(int k, int rows, unsigned char *a, unsigned char *gftbls);
void ec_encode_data(int len, int k, int rows, unsigned char *gftbls,
                    unsigned char **data, unsigned char **coding);
"""
_TABLE_SIZE_BYTES = 32
"""ISA-L expands every coefficient to a table of this size."""
_PATTERNS_MAX = 256
"""Loss patterns whose tables are kept, a codec; each takes at most a few kilobytes."""

Buffer = bytes | bytearray | memoryview


class IsalLibrary:
    """The shared library, opened once a process."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when it cannot be loaded, AttributeError when it lacks a function."""
        self.ffi: Any = cffi.FFI()
        self.ffi.cdef(_DECLARATIONS)
        self.functions: Any = self.ffi.dlopen(str(path))
        for name in ("gf_gen_cauchy1_matrix", "gf_invert_matrix", "gf_mul"):
            getattr(self.functions, name)
        self.init_tables: Any = self.functions.ec_init_tables
        self.encode_data: Any = self.functions.ec_encode_data


@lru_cache(maxsize=1)
def bundled_library() -> IsalLibrary | None:
    """The ISA-L beside pyeclib, or None where the wheel was built without it."""
    beside = Path(pyeclib_c.__file__).parent / "pyeclib.libs"
    for path in sorted(beside.glob("libisal*.so*")):
        try:
            return IsalLibrary(path)
        except (OSError, AttributeError):
            continue
    return None


class CauchyCoder:
    """Systematic Cauchy coding of one k+m. All buffers are contiguous and of the sizes asked for:
    the caller checks them, C does not. Threads may share one coder.
    """

    def __init__(self, library: IsalLibrary, k: int, m: int) -> None:
        """`k` ≥ 2 and `m` ≥ 1."""
        self._library = library
        self._ffi = library.ffi
        self._k = k
        self._m = m
        self._matrix: Any = self._ffi.new("unsigned char[]", (k + m) * k)
        library.functions.gf_gen_cauchy1_matrix(self._matrix, k + m, k)
        self._parity_tables = self._tables(self._matrix + k * k, m)
        self._rebuild_tables = lru_cache(maxsize=_PATTERNS_MAX)(self._make_rebuild_tables)
        self._pointers = self._ffi.typeof(f"unsigned char *[{k}]")
        self._parity_pointers = self._ffi.typeof(f"unsigned char *[{m}]")

    def encode_slices(
        self, stripe: Buffer, fragment_size_bytes: int, parity: Sequence[bytearray | memoryview]
    ) -> None:
        """Parity of the k fragments that lie one after the other in `stripe`."""
        ffi = self._ffi
        source = ffi.from_buffer(stripe)
        first = ffi.cast("unsigned char *", source)
        data = ffi.new(self._pointers, [first + i * fragment_size_bytes for i in range(self._k)])
        targets = [ffi.from_buffer("unsigned char[]", part, True) for part in parity]
        self._library.encode_data(
            fragment_size_bytes,
            self._k,
            self._m,
            self._parity_tables,
            data,
            ffi.new(self._parity_pointers, targets),
        )

    def encode_fragments(
        self, fragments: Sequence[Buffer], parity: Sequence[bytearray | memoryview]
    ) -> None:
        """Parity of k fragments that lie anywhere."""
        self._run(self._parity_tables, fragments, parity)

    def rebuild(
        self,
        survivors: tuple[int, ...],
        fragments: Sequence[Buffer],
        wanted: tuple[int, ...],
        rebuilt: Sequence[bytearray | memoryview],
    ) -> None:
        """Compute the `wanted` fragments from k `survivors`, given in the same order."""
        self._run(self._rebuild_tables(survivors, wanted), fragments, rebuilt)

    def _run(
        self, tables: Any, sources: Sequence[Buffer], targets: Sequence[bytearray | memoryview]
    ) -> None:
        """One pass over the sources. The arrays of exports keep every buffer alive and in place."""
        ffi = self._ffi
        read = [ffi.from_buffer("unsigned char[]", part) for part in sources]
        written = [ffi.from_buffer("unsigned char[]", part, True) for part in targets]
        self._library.encode_data(
            len(read[0]),
            len(read),
            len(written),
            tables,
            ffi.new("unsigned char *[]", read),
            ffi.new("unsigned char *[]", written),
        )

    def _tables(self, rows: Any, count: int) -> Any:
        tables = self._ffi.new("unsigned char[]", _TABLE_SIZE_BYTES * self._k * count)
        self._library.init_tables(self._k, count, rows, tables)
        return tables

    def _make_rebuild_tables(self, survivors: tuple[int, ...], wanted: tuple[int, ...]) -> Any:
        """Invert the survivors' rows; a wanted fragment is its own row times that inverse."""
        ffi, k, functions = self._ffi, self._k, self._library.functions
        square = ffi.new("unsigned char[]", k * k)
        for position, index in enumerate(survivors):
            ffi.memmove(square + position * k, self._matrix + index * k, k)
        inverse = ffi.new("unsigned char[]", k * k)
        singular = functions.gf_invert_matrix(square, inverse, k)
        assert singular == 0, "every square part of a Cauchy matrix can be inverted"
        rows = ffi.new("unsigned char[]", len(wanted) * k)
        for position, index in enumerate(wanted):
            for column in range(k):
                value = 0
                for i in range(k):
                    value ^= functions.gf_mul(self._matrix[index * k + i], inverse[i * k + column])
                rows[position * k + column] = value
        return self._tables(rows, len(wanted))
