"""Version ids and stamps; what object lock permits."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.object_lock import (
    COMPLIANCE,
    DAYS,
    GOVERNANCE,
    YEARS,
    Lock,
    Retention,
    default_retention,
    is_locked,
    may_change_retention,
)
from gateway.domain.versions import (
    ENABLED,
    SUSPENDED,
    Stamp,
    VersionAsked,
    fits,
    new_stamp,
    order_of,
    version_asked,
    version_bytes,
    version_text,
)

RANDOM = bytes(range(16))
orders = st.integers(0, (1 << 63) - 1)
randoms = st.binary(min_size=16, max_size=16)


@given(orders, randoms)
def test_an_id_tells_the_order_and_goes_through_text(now_ns: int, random: bytes) -> None:
    stamp = new_stamp(ENABLED, above=-1, now_ns=now_ns, random=random)
    assert order_of(stamp.version_id) == stamp.order == now_ns
    text = version_text(stamp.version_id)
    assert re.fullmatch(r"[A-Za-z0-9._]{32}", text)
    assert version_asked(text) is VersionAsked.NAMED
    assert version_bytes(text) == stamp.version_id


@given(st.from_regex(r"[A-Za-z0-9._]{32}", fullmatch=True))
def test_an_id_of_somebody_else_is_read_without_complaint(text: str) -> None:
    assert version_text(version_bytes(text)) == text
    assert 0 <= order_of(version_bytes(text)) < 1 << 64


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (None, VersionAsked.CURRENT),
        ("null", VersionAsked.NAMED),
        ("", VersionAsked.MALFORMED),
        ("x" * 31, VersionAsked.MALFORMED),
        ("x" * 33, VersionAsked.MALFORMED),
        ("x" * 31 + "+", VersionAsked.MALFORMED),
        ("x" * 31 + "\n", VersionAsked.MALFORMED),
    ],
)
def test_arguments_are_told_apart(text: str | None, meaning: VersionAsked) -> None:
    assert version_asked(text) is meaning


@given(orders, orders, st.sampled_from([ENABLED, SUSPENDED]))
def test_a_new_version_is_above_the_last_whatever_the_clock_says(
    above: int, now_ns: int, state: str
) -> None:
    stamp = new_stamp(state, above=above, now_ns=now_ns, random=RANDOM)
    assert stamp.order > above
    assert bool(stamp.version_id) == (state == ENABLED)
    assert fits(stamp, state, above=above)
    assert not fits(stamp, state, above=stamp.order)


def test_a_stamp_of_another_state_does_not_fit() -> None:
    named = new_stamp(ENABLED, above=0, now_ns=5, random=RANDOM)
    assert not fits(named, SUSPENDED, above=0)
    assert not fits(Stamp(b"", 5), ENABLED, above=0)
    assert new_stamp("", above=3, now_ns=5, random=RANDOM) == Stamp(b"", 0)


NOW = 1_000_000
LATER, LATEST, PAST = NOW + 1, NOW + 2, NOW


@pytest.mark.parametrize(
    ("lock", "bypass", "locked"),
    [
        (Lock(), False, False),
        (Lock(legal_hold=True), False, True),
        (Lock(legal_hold=True), True, True),
        (Lock((GOVERNANCE, LATER)), False, True),
        (Lock((GOVERNANCE, LATER)), True, False),
        (Lock((GOVERNANCE, PAST)), False, False),
        (Lock((COMPLIANCE, LATER)), False, True),
        (Lock((COMPLIANCE, LATER)), True, True),
        (Lock((COMPLIANCE, PAST)), False, False),
        (Lock((GOVERNANCE, PAST), legal_hold=True), True, True),
        (Lock((GOVERNANCE, LATER), legal_hold=True), True, True),
    ],
)
def test_what_is_locked_stays(lock: Lock, bypass: bool, locked: bool) -> None:
    assert is_locked(lock, now_ms=NOW, bypass=bypass) is locked


@pytest.mark.parametrize(
    ("current", "wanted", "plainly", "bypassing"),
    [
        (None, None, True, True),
        (None, (COMPLIANCE, LATER), True, True),
        ((COMPLIANCE, PAST), None, True, True),
        ((COMPLIANCE, PAST), (GOVERNANCE, LATER), True, True),
        ((GOVERNANCE, LATER), (GOVERNANCE, LATER), True, True),
        ((GOVERNANCE, LATER), (GOVERNANCE, LATEST), True, True),
        ((GOVERNANCE, LATEST), (GOVERNANCE, LATER), False, True),
        ((GOVERNANCE, LATER), (COMPLIANCE, LATEST), False, True),
        ((GOVERNANCE, LATER), None, False, True),
        ((COMPLIANCE, LATER), (COMPLIANCE, LATEST), True, True),
        ((COMPLIANCE, LATEST), (COMPLIANCE, LATER), False, False),
        ((COMPLIANCE, LATER), (GOVERNANCE, LATEST), False, False),
        ((COMPLIANCE, LATER), None, False, False),
    ],
)
def test_retention_grows_and_only_governance_shrinks(
    current: Retention | None, wanted: Retention | None, plainly: bool, bypassing: bool
) -> None:
    assert may_change_retention(current, wanted, now_ms=NOW, bypass=False) is plainly
    assert may_change_retention(current, wanted, now_ms=NOW, bypass=True) is bypassing


def test_default_retention_counts_days_and_years_of_365() -> None:
    day = 24 * 60 * 60 * 1000
    assert default_retention(None, NOW) is None
    assert default_retention((GOVERNANCE, 2, DAYS), NOW) == (GOVERNANCE, NOW + 2 * day)
    assert default_retention((COMPLIANCE, 2, YEARS), NOW) == (COMPLIANCE, NOW + 730 * day)
