"""Tags of users, roles, policies and providers: which are taken, and how sets change."""

import pytest

from gateway.domain.iam import POLICY, PROVIDER, ROLE, USER, IamRefused, Kind, Refusal
from gateway.domain.iam_tags import TAGS_MAX, checked, merged, of_key, without
from gateway.iam.form import Form

PRESENT = (("Team", "a"), ("env", "x"))


@pytest.mark.parametrize("kind", [USER, ROLE])
def test_keys_of_users_and_roles_are_the_same_in_any_case(kind: Kind) -> None:
    assert merged(kind, PRESENT, (("team", "b"),)) == (("env", "x"), ("team", "b"))
    assert without(kind, PRESENT, ["TEAM", "absent"]) == (("env", "x"),)


@pytest.mark.parametrize("kind", [POLICY, PROVIDER])
def test_keys_of_others_are_not(kind: Kind) -> None:
    assert merged(kind, PRESENT, (("team", "b"),)) == (*PRESENT, ("team", "b"))
    assert merged(kind, PRESENT, (("Team", "b"),)) == (("Team", "b"), ("env", "x"))
    assert without(kind, PRESENT, ["TEAM"]) == PRESENT


def test_fifty_tags_and_no_more() -> None:
    full = tuple((f"k{number:02}", "") for number in range(TAGS_MAX))
    assert len(merged(USER, full, (("k07", "new"),))) == TAGS_MAX
    with pytest.raises(IamRefused) as refused:
        merged(USER, full, (("one more", ""),))
    assert refused.value.refusal is Refusal.LIMIT_EXCEEDED


@pytest.mark.parametrize("tags", [[("a", "1"), ("A", "2")], [("aws:x", "")], [("AWS:x", "")]])
def test_tags_that_are_refused(tags: list[tuple[str, str]]) -> None:
    with pytest.raises(IamRefused) as refused:
        checked(USER, tags)
    assert refused.value.refusal is Refusal.INVALID_INPUT
    if tags[0][0] == "a":
        assert checked(POLICY, tags) == tuple(tags)


@pytest.mark.parametrize(
    ("key", "value", "taken"),
    [
        ("Größe: 5/6", "a+b=c@d", True),
        ("a\u00a0b", "", True),
        ("", "x", False),
        ("a\tb", "x", False),
        ("a", "x\n", False),
        ("a!", "x", False),
        ("a" * 129, "x", False),
        ("a", "x" * 257, False),
    ],
)
def test_characters_and_lengths(key: str, value: str, taken: bool) -> None:
    form = Form({"Tags.member.1.Key": key, "Tags.member.1.Value": value})
    if taken:
        assert form.tags(USER) == ((key, value),)
        return
    with pytest.raises(IamRefused) as refused:
        form.tags(USER)
    assert refused.value.refusal is Refusal.VALIDATION


@pytest.mark.parametrize(("name", "value"), [("Flag", "yes"), ("Choice", "c"), ("Choice", "")])
def test_words_that_are_not_among_those_known(name: str, value: str) -> None:
    form = Form({name: value})
    with pytest.raises(IamRefused) as refused:
        form.flag(name) if name == "Flag" else form.choice(name, ("a", "b"))
    assert refused.value.refusal is Refusal.VALIDATION


def test_conditions_find_tags_whatever_their_keys_case() -> None:
    assert of_key(PRESENT, "team") == ("a",)
    assert of_key((*PRESENT, ("team", "b")), "TEAM") == ("a", "b")
    assert of_key(PRESENT, "absent") is None


def test_tags_are_told_as_they_were_sent() -> None:
    form = Form(
        {
            "Tags.member.1.Key": "aws:x",
            "Tags.member.1.Value": "1",
            "Tags.member.2.Key": "!",
            "Tags.member.4.Key": "lost",
            "TagKeys.member.1": "gone",
        }
    )
    assert form.told_tags() == (("aws:x", "1"), ("!", ""))
    assert form.told_tag_keys() == ("aws:x", "!", "gone")
