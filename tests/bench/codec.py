"""CPU of coding, decoding and checksums, by scheme and size of stripe."""

import json
import sys
import time
from collections.abc import Callable

from placement.allocator import tune_allocator
from placement.codec import Codec, checksum, fragment_size_bytes

SECONDS_A_CASE = 0.2
SCHEMES = ((4, 2), (8, 3), (10, 4))
SIZES_BYTES = (16 << 10, 64 << 10, 1 << 20)


def microseconds(work: Callable[[], object]) -> float:
    """CPU of one call: the best of five rounds."""
    work()
    rounds = []
    for _ in range(5):
        count, started = 0, time.process_time()
        while (spent := time.process_time() - started) < SECONDS_A_CASE / 5:
            for _ in range(8):
                work()
            count += 8
        rounds.append(spent / count * 1e6)
    return min(rounds)


def measure(k: int, m: int, size_bytes: int) -> list[dict[str, object]]:
    """In place, as allocated fragments, through pyeclib; a decode that lacks m data fragments."""
    codec, reference = Codec(k, m), Codec(k, m, direct=False)
    stripe = memoryview(bytearray(codec.padded_size_bytes(size_bytes)))
    each = fragment_size_bytes(k, size_bytes)
    parity = [memoryview(bytearray(each)) for _ in range(m)]
    plain = bytes(stripe[:size_bytes])
    left = {i: bytes(part) for i, part in enumerate(codec.encode(plain)) if i >= m}
    first = left[m]
    cases: dict[str, Callable[[], object]] = {
        "encode in place": lambda: codec.encode_into(stripe, size_bytes, parity),
        "encode": lambda: codec.encode(plain),
        "encode by pyeclib": lambda: reference.encode(plain),
        "decode without m": lambda: codec.decode(left, size_bytes),
        "checksum a fragment": lambda: checksum(first),
    }
    rows: list[dict[str, object]] = []
    for name, work in cases.items():
        cost = microseconds(work)
        amount = each if name == "checksum a fragment" else size_bytes
        rows.append(
            {
                "case": name,
                "scheme": f"{k}+{m}",
                "stripe_bytes": size_bytes,
                "cpu_microseconds": round(cost, 2),
                "gigabytes_per_second": round(amount / cost / 1e3, 2),
            }
        )
    return rows


def main() -> None:
    """Print the rows as JSON, or one a line."""
    tune_allocator()
    rows = [row for k, m in SCHEMES for size in SIZES_BYTES for row in measure(k, m, size)]
    if "--json" in sys.argv:
        print(json.dumps(rows))
    else:
        for row in rows:
            print(*row.values(), sep="  ")


if __name__ == "__main__":
    main()
