"""Schemes: their written form and how they narrow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.schemes import Scheme, default_scheme, widest_that_fits

schemes = st.builds(Scheme, st.integers(1, 32), st.integers(0, 16))


@given(schemes)
def test_the_written_form_reads_back(scheme: Scheme) -> None:
    assert Scheme.parse(str(scheme)) == scheme


@pytest.mark.parametrize(
    "text", ["", "4", "4+", "+2", "4 + 2", "4+2+1", "04+02 ", "-4+2", "0+2", "33+1", "4+17", "٤+2"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="scheme"):
        Scheme.parse(text)


@given(schemes, st.integers(0, 60))
def test_narrowing_keeps_the_tolerance_or_gives_up(scheme: Scheme, live: int) -> None:
    narrowed = widest_that_fits(scheme, live)
    if narrowed is None:
        assert live < scheme.m + 1
    else:
        assert narrowed.m == scheme.m
        assert narrowed.width <= live
        assert narrowed.k == scheme.k or narrowed.width == live


def test_four_plus_two_narrows_as_the_design_says() -> None:
    forms = [str(widest_that_fits(Scheme(4, 2), live)) for live in range(7, 1, -1)]
    assert forms == ["4+2", "4+2", "3+2", "2+2", "1+2", "None"]


@pytest.mark.parametrize("drives", range(1, 65))
def test_the_default_scheme_fits_its_drives(drives: int) -> None:
    scheme = default_scheme(drives)
    assert scheme.width <= drives
    assert (scheme.m > 0) == (drives > 1)


def test_six_drives_get_four_plus_two() -> None:
    assert default_scheme(6) == Scheme(4, 2)


def test_copies_have_the_same_tolerance() -> None:
    assert Scheme(4, 2).copies == Scheme(1, 2)
    assert Scheme(4, 2).copies.width == 3
