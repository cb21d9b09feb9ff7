"""One decision about rights: all grants of a caller have to allow what he asks for."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.access.caller import Caller, Link, anonymous
from daemon.access.decide import UploadWish, decide, instance_allowed, largest_file
from daemon.errors import ERRORS
from daemon.model.grant import Grant, Permission
from daemon.model.upload import Destination

UPLOAD, READ = Permission.UPLOAD, Permission.READ
WEB = Destination("local", "default", "web-1", "/srv/x")
#: What a limit is, what keeps to it, and the code for what does not.
LIMITS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = [
    ({"remotes": ("local",)}, {"remote": "eu"}, {}, "remote_not_allowed"),
    ({"projects": ("default",)}, {"project": "other"}, {}, "project_not_allowed"),
    ({"instances": ("web-*",)}, {"instance": "db-1"}, {}, "instance_not_allowed"),
    ({"instances": ("web-*",)}, {"instance": "WEB-1"}, {}, "instance_not_allowed"),
    ({"paths": ("/srv/**",)}, {"path": "/etc/passwd"}, {}, "path_not_allowed"),
    ({"paths": ("/srv/**",)}, {"path": "/Srv/x"}, {}, "path_not_allowed"),
    ({"mkdirs": False}, {}, {"mkdirs": True}, "mkdirs_not_allowed"),
    ({}, {}, {"mode": 0o4755}, "mode_not_allowed"),
    ({}, {}, {"mode": 0o2755}, "mode_not_allowed"),
    ({"modes": 0o755}, {}, {"mode": 0o775}, "mode_not_allowed"),
    ({}, {}, {"uid": 0}, "owner_not_allowed"),
    ({}, {}, {"gid": 0}, "owner_not_allowed"),
    ({"uids": ((1000, 1999),)}, {}, {"uid": 2000}, "owner_not_allowed"),
    ({"max_file_bytes": 10}, {}, {"size": 11}, "size_not_allowed"),
]


def caller(*grants: dict[str, Any], address: str | None = "10.0.0.1") -> Caller:
    """Somebody with these grants, his own first; each may upload."""
    links = tuple(Link("token:a", Grant(**{"may": frozenset({UPLOAD}), **grant})) for grant in grants)
    return Caller(name="token:a", links=links, address=address)


@pytest.mark.parametrize(("limit", "elsewhere", "beyond", "code"), LIMITS)
def test_each_limit_has_a_refusal_of_its_own(
    limit: dict[str, Any], elsewhere: dict[str, str], beyond: dict[str, Any], code: str,
) -> None:
    """What is beyond one limit is refused with its code, whichever grant of a chain has it; all else is allowed."""
    to, wish = dataclasses.replace(WEB, **elsewhere), UploadWish(**beyond)
    assert decide(caller(limit), UPLOAD, to, wish=wish) == code
    assert decide(caller({}, {"modes": 0o7777, "uids": ((0, 9),)}, limit), UPLOAD, to, wish=wish) == code
    assert decide(caller(limit), UPLOAD, WEB, wish=UploadWish(size=10, mode=0o644)) is None
    assert ERRORS[code].status == 403


def test_permission_that_one_grant_lacks_is_refused() -> None:
    """Who may upload may not read, and a grant cannot hand on what it has not."""
    assert decide(caller({}), READ, WEB) == "action_not_allowed"
    assert decide(caller({"may": frozenset({UPLOAD, READ})}, {}), READ, WEB) == "action_not_allowed"
    assert decide(caller({"may": frozenset({READ})}), READ, WEB) is None


@pytest.mark.parametrize(("address", "allowed"), [
    ("10.0.0.1", True), ("10.0.1.1", False), ("::ffff:10.0.0.9", True), ("fe80::1%eth0", False), (None, False)])
def test_grant_for_a_network_is_for_no_other(address: str | None, allowed: bool) -> None:
    """A credential that was stolen is of no use elsewhere, not even at a Unix socket, unless it says so."""
    assert (decide(caller({"addresses": ("10.0.0.0/24",)}, address=address), UPLOAD, WEB) is None) is allowed
    assert decide(caller({"addresses": ("unix",)}, address=None), UPLOAD, WEB) is None


def test_own_is_what_the_caller_sent_himself() -> None:
    """With `own` tasks of others are none of his business: not of who handed the rights on, and not anonymous ones."""
    one = caller({"may": frozenset({READ}), "own": True})
    assert [decide(one, READ, WEB, sender=sender) for sender in ("token:a", "token:a/b", "token:ab", None)] == [
        None, *["task_not_allowed"] * 3]
    assert decide(caller({"may": frozenset({READ})}), READ, WEB, sender="token:b") is None


def test_smallest_limit_of_a_file_counts() -> None:
    """Of several grants the one that allows least counts."""
    assert largest_file(caller({"max_file_bytes": 5}, {}, {"max_file_bytes": 3})) == 3
    assert largest_file(caller({})) is None


def test_instance_is_allowed_when_some_path_of_it_is() -> None:
    """An instance is left out only when none of its tasks can be meant."""
    assert instance_allowed(caller({"instances": ("web-*",), "paths": ("/x",)}), "local/default/web-1")
    assert not instance_allowed(caller({}, {"instances": ("web-*",)}), "local/default/db-1")


def test_anonymous_with_all_rights_may_everything() -> None:
    """Where everybody may do everything there is nothing to refuse."""
    wish = UploadWish(size=2**60, mode=0o7777, uid=0, gid=0, mkdirs=True)
    assert {decide(anonymous(None), permission, WEB, wish=wish, sender="token:a") for permission in Permission} == {None}


@given(st.data())
def test_child_may_nothing_that_its_parent_may_not(data: st.DataObject) -> None:
    """Whatever a child's own grant says, it gets at most what its parent gets."""
    limits = st.sampled_from([limit for limit, *_ in LIMITS])
    child, parent = data.draw(limits), data.draw(limits)
    _, elsewhere, beyond, _ = data.draw(st.sampled_from(LIMITS))
    to, wish = dataclasses.replace(WEB, **elsewhere), UploadWish(**beyond)
    if decide(caller(child, parent), UPLOAD, to, wish=wish) is None:
        assert decide(caller(parent), UPLOAD, to, wish=wish) is None
