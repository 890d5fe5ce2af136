"""The parsers' targets on their seeds, cut and changed: nothing but documented refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

CASES = [
    pytest.param(target, seed, id=f"{target.name}-{number}")
    for target in TARGETS.values()
    for number, seed in enumerate(target.seeds)
]


@pytest.mark.parametrize(("target", "seed"), CASES)
def test_a_seed_that_is_cut_anywhere_is_taken_or_refused(target, seed) -> None:  # type: ignore[no-untyped-def]
    for end in range(0, len(seed) + 1, 3):
        target.feed(seed[:end])
    target.feed(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_with_other_bytes_in_them_are_taken_or_refused(name: str) -> None:
    target = TARGETS[name]
    pieces = st.binary(max_size=6) | st.sampled_from(
        [b"\x00", b"\r\n", b"<", b"\xff\xfe", b'"', b"9" * 30, b"-1", "\u0661".encode(), b"%00"]
    )

    @given(st.sampled_from(target.seeds), st.data())
    def changed(seed: bytes, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, len(seed)))
        end = data.draw(st.integers(start, min(len(seed), start + 12)))
        target.feed(seed[:start] + data.draw(pieces) + seed[end:])

    changed()
