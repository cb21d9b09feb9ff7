"""Rights that are handed on."""

from dataclasses import replace
from typing import Any

import pytest

from daemon.access.caller import Caller, Link, anonymous
from daemon.access.children import MAX_HANDED_ON, budgets_of, caller_of, hand_on_refusal, is_below, narrower
from daemon.access.decide import UploadWish, decide
from daemon.access.token_file import MAX_LINKS
from daemon.access.token_text import ID_LENGTH
from daemon.delegation import Child
from daemon.model.grant import EVERYTHING, Grant, Permission
from daemon.model.names import is_client
from daemon.model.upload import Destination

NOW_S = 1000.0
HOLDER = "h" * 63
UPLOAD = Grant.read({"may": ["upload"]})
DELEGATE = Grant.read({"may": ["upload", "read", "delegate"], "instances": ["web-*"], "max_file_bytes": 100})
CI = Link("token:ci", DELEGATE)


def a_child(key_id: str, parent: str = "token:ci", **values: Any) -> Child:
    """A child that lives for an hour."""
    made = Child(key_id=key_id, sha256="0" * 64, root="token:ci", parent=parent, grant=UPLOAD, made_at=NOW_S,
                 expires_at=NOW_S + 3600)
    return replace(made, **values)


@pytest.mark.parametrize("root", [
    "token:" + "/".join([HOLDER] * MAX_LINKS), f"cert:{HOLDER}", f"peer:{HOLDER}", "user:" + "\u00fc" * 255])
def test_longest_name_can_stand_in_a_task(root: str) -> None:
    """Of whatever kind, and handed on as often as can be: else what is sent under it would be taken for damage."""
    name = "/".join([root, *["i" * ID_LENGTH] * MAX_HANDED_ON])
    assert is_client(name)


def roots(name: str) -> tuple[Link, ...] | None:
    """One identity of the administrator's."""
    return (CI,) if name == "token:ci" else None


@pytest.mark.parametrize(("may", "parents", "code"), [
    (["upload"], [DELEGATE], None),
    (["upload", "read", "delegate"], [DELEGATE], None),
    (["save"], [DELEGATE], "action_not_allowed"),
    (["admin"], [DELEGATE], "action_not_allowed"),
    (["admin"], [EVERYTHING], None),
    (["upload"], [UPLOAD], "action_not_allowed"),
    (["upload"], [DELEGATE, UPLOAD], "action_not_allowed"),
    (["read"], [DELEGATE, Grant.read({"may": ["upload", "delegate"]})], "action_not_allowed"),
])
def test_only_permissions_that_all_above_have_are_handed_on(may: list[str], parents: list[Grant], code: str | None) -> None:
    """And only where all of them may hand on."""
    assert narrower(Grant.read({"may": may}), [Link(str(n), grant) for n, grant in enumerate(parents)]) == code


def test_who_may_not_hand_on_is_told_why() -> None:
    """Nobody in particular, who comes from elsewhere, who has it from too many, who wants more than he has."""
    caller = Caller(name="token:ci", links=(CI,))
    assert hand_on_refusal(caller, UPLOAD) is None
    assert hand_on_refusal(caller, EVERYTHING) == "action_not_allowed"
    assert hand_on_refusal(anonymous(None), UPLOAD) == "action_not_allowed"
    deep = Caller(name="token:ci/A", links=(CI,) * (MAX_HANDED_ON + 1), handed_on=MAX_HANDED_ON)
    assert hand_on_refusal(deep, UPLOAD) == "delegation_too_deep"
    elsewhere = Link("token:ci", replace(DELEGATE, addresses=("10.0.0.0/8",)))
    assert hand_on_refusal(Caller(name="token:ci", links=(elsewhere,), address="::1"), UPLOAD) == "address_not_allowed"


def test_child_acts_under_its_own_grant_and_those_above_it() -> None:
    """The rights of now: what the one at the root may not do any more, none below him may."""
    lineage = [a_child("B", "token:ci/A", expires_at=NOW_S + 9), a_child("A", grant=replace(DELEGATE, max_file_bytes=50))]
    caller = caller_of(lineage, roots, now=NOW_S, address="10.0.0.1")
    assert caller is not None
    assert [link.name for link in caller.links] == ["token:ci/A/B", "token:ci/A", "token:ci"]
    assert (caller.name, caller.root, caller.handed_on, caller.address, caller.expires_at) == (
        "token:ci/A/B", "token:ci", 2, "10.0.0.1", NOW_S + 9)
    to = Destination("local", "default", "web-1", "/x")
    assert decide(caller, Permission.UPLOAD, to, wish=UploadWish(size=50)) is None
    assert decide(caller, Permission.UPLOAD, to, wish=UploadWish(size=51)) == "size_not_allowed"
    assert decide(caller, Permission.UPLOAD, replace(to, instance="db-1")) == "instance_not_allowed"
    assert decide(caller, Permission.READ, to) == "action_not_allowed"


@pytest.mark.parametrize("lineage", [
    [],
    [a_child("A", expires_at=NOW_S)],
    [a_child("B", "token:ci/A"), a_child("A", expires_at=NOW_S)],
    [a_child("A", "token:gone", root="token:gone")],
    [a_child("B", "token:ci/A")],
    [a_child("B", "token:ci/A"), a_child("C")],
    [a_child("B", "token:ci/A"), a_child("A", "token:gone", root="token:gone")],
])
def test_child_is_nobody_once_anybody_above_it_is(lineage: list[Child]) -> None:
    """It expired, one above it expired or is missing, the one at the root is gone, or they do not belong together."""
    assert caller_of(lineage, roots, now=NOW_S, address=None) is None


def test_names_below_a_name_begin_with_it_as_a_whole() -> None:
    """Not with a part of it, and nobody is below himself."""
    assert is_below("token:ci/A", "token:ci")
    assert not is_below("token:ci-2/A", "token:ci")
    assert not is_below("token:ci", "token:ci")


def test_amounts_of_all_above_are_used_up() -> None:
    """Each by its name; who has none has nothing to use up."""
    lineage = [a_child("B", "token:ci/A", grant=replace(UPLOAD, max_uploads=1)), a_child("A", grant=DELEGATE)]
    caller = caller_of(lineage, lambda _: (Link("token:ci", replace(DELEGATE, max_total_bytes=9)),), now=NOW_S, address=None)
    assert caller is not None
    assert [(each.name, each.is_child, each.max_uploads, each.max_total_bytes) for each in budgets_of(caller)] == [
        ("token:ci/A/B", True, 1, None), ("token:ci", False, None, 9)]
