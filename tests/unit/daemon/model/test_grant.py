"""Grants are read from plain keys, written back as these, and wrong ones are named."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.model.grant import EVERYTHING, KEYS, Grant, Permission
from daemon.model.upload import MAX_ID

ID = st.integers(0, MAX_ID)
RANGES = st.lists(st.tuples(ID, ID).map(sorted).map(tuple), min_size=1, max_size=3).map(tuple)
NAMES = st.none() | st.lists(st.sampled_from(["*", "web-*", "a"]), min_size=1, max_size=2).map(tuple)
GRANTS = st.builds(
    Grant, may=st.sets(st.sampled_from([p for p in Permission if p is not Permission.ADMIN]), min_size=1).map(frozenset),
    own=st.booleans(), instances=NAMES, projects=NAMES, remotes=NAMES,
    paths=st.none() | st.just(("/srv/**", "/a/*")), max_file_bytes=st.none() | st.integers(0, 2**62),
    max_uploads_s=st.none() | st.floats(0.1, 1e6), max_bytes_s=st.none() | st.floats(1, 1e12),
    max_pending_tasks=st.none() | st.integers(1, 100), max_pending_bytes=st.none() | st.integers(1, 100),
    max_uploads=st.none() | st.integers(1, 100), max_total_bytes=st.none() | st.integers(1, 100),
    modes=st.integers(0, 0o7777), uids=RANGES, gids=RANGES, mkdirs=st.booleans(),
    addresses=st.none() | st.just(("10.0.0.0/8", "unix", "::1/128")))


@given(GRANTS)
def test_grant_that_is_written_is_read_again(grant: Grant) -> None:
    """Plain keys and values hold all of a grant."""
    assert Grant.read(grant.plain()) == grant


def test_grant_has_one_key_for_each_of_its_limits() -> None:
    """The table of keys has all that a grant has, in the same order."""
    assert list(KEYS) == list(Grant.__dataclass_fields__)


def test_unnamed_limit_does_not_limit_but_for_set_id_and_root() -> None:
    """Only set-id bits, and root as an explicit owner or group, have to be granted."""
    grant = Grant.read({"may": ["upload"]})
    assert (grant.modes, grant.uids, grant.gids) == (0o1777, ((1, MAX_ID),), ((1, MAX_ID),))
    assert {key for key in KEYS if getattr(grant, key) is None} == {
        "instances", "projects", "remotes", "paths", "max_file_bytes", "max_uploads_s", "max_bytes_s", "max_pending_tasks",
        "max_pending_bytes", "max_uploads", "max_total_bytes", "addresses"}


def test_admin_may_everything() -> None:
    """Who is an administrator need not be given the other permissions."""
    assert Grant.read({"may": ["admin"]}).may == EVERYTHING.may


@pytest.mark.parametrize(("keys", "said"), [
    ({}, "may: must name at least one of: upload, read"), ({"may": []}, "may: must be a list"),
    ({"may": ["fly"]}, "may: there is no 'fly'; there are: upload,"), ({"may": "upload"}, "may: must be a list"),
    ({"may": ["upload"], "path": ["/"]}, "path: there is no such key; the keys of a grant are: may,"),
    ({"may": ["upload"], "paths": ["/a//b"]}, "paths: '/a//b' is no glob of a path"),
    ({"may": ["upload"], "instances": ["a/b"]}, "instances: 'a/b' is no glob of a name"),
    ({"may": ["upload"], "max_file_bytes": -1}, "max_file_bytes: must be a whole number from 0 on"),
    ({"may": ["upload"], "max_file_bytes": True}, "max_file_bytes: must be a whole number"),
    ({"may": ["upload"], "max_uploads_s": 0}, "max_uploads_s: must be a number over 0"),
    ({"may": ["upload"], "max_bytes_s": float("nan")}, "max_bytes_s: must be a number over 0"),
    ({"may": ["upload"], "modes": 755}, "modes: must be the permission bits"),
    ({"may": ["upload"], "uids": ["5-2"]}, "uids: '5-2' is no range"), ({"may": ["upload"], "uids": ["x"]}, "uids: 'x' is neither"),
    ({"may": ["upload"], "gids": [str(MAX_ID + 1)]}, "gids: '4294967295' is no range"),
    ({"may": ["upload"], "own": 1}, "own: must be true or false"),
    ({"may": ["upload"], "addresses": ["localhost"]}, "addresses: 'localhost' is neither an address"),
])
def test_wrong_key_is_named(keys: dict[str, Any], said: str) -> None:
    """Whoever writes a grant is told which key is wrong and what would be right."""
    with pytest.raises(ValueError, match=re.escape(said)):
        Grant.read(keys)
