"""What somebody is told about himself."""

import pytest

from api.queries.sight import Sight
from api.routes.me import describe_me
from daemon.access.caller import Caller, Link, anonymous
from daemon.model.grant import Grant, Permission

READ = frozenset({Permission.READ})


def caller(name: str, *grants: Grant) -> Caller:
    """Somebody with these grants, his own first."""
    return Caller(name=name, links=tuple(Link(name, grant) for grant in grants), address="10.0.0.1", expires_at=1_700_000_000.0)


def test_stranger_who_may_do_everything_has_no_name() -> None:
    """Nothing that he could be known by."""
    told = describe_me(anonymous("127.0.0.1"))
    assert (told["name"], told["anonymous"], told["kind"], told["sees_all"]) == (None, True, "anonymous", True)
    assert (told["may"], told["instances"], told["own"], told["expires_at"]) == ([*Permission], None, False, None)


def test_holder_is_told_what_he_may_where_and_until_when() -> None:
    """Where somebody handed it on, both have to allow it; of the bounds the nearest ones are told, of the limits the lowest."""
    upper = Grant(may=frozenset({Permission.READ, Permission.RETRY}), instances=("web*",), paths=("/srv/**",),
                  max_file_bytes=10, max_uploads=3)
    told = describe_me(caller("token:ci/abc", Grant(may=frozenset({Permission.READ, Permission.HOLD}), own=True, instances=("web1",), max_file_bytes=20), upper))
    assert told == {
        "name": "token:ci/abc", "anonymous": False, "kind": "token", "may": ["read"], "instances": ["web1"], "projects": None,
        "remotes": None, "paths": ["/srv/**"], "max_file_bytes": 10, "max_uploads": 3, "max_total_bytes": None, "own": True, "sees_all": False, "expires_at": "2023-11-14T22:13:20.000Z"}


@pytest.mark.parametrize(("name", "kind"), [
    ("token:ci", "token"), ("cert:ops", "certificate"), ("peer:ops", "peer"), ("local:root", "peer"), ("user:jane", "user")])
def test_kind_says_what_was_shown(name: str, kind: str) -> None:
    """As the names of identities begin."""
    assert describe_me(caller(name, Grant(may=READ)))["kind"] == kind


@pytest.mark.parametrize(("grant", "of_all"), [
    (Grant(may=READ), True), (Grant(may=frozenset({Permission.METRICS})), False), (Grant(may=READ, own=True), False),
    (Grant(may=READ, paths=("/**",)), False), (Grant(may=READ, instances=("*",)), False), (Grant(may=READ, remotes=("a",)), False),
    (Grant(may=READ, projects=("a",)), False), (Grant(may=READ, addresses=("10.9.0.0/16",)), False)])
def test_whole_is_for_who_sees_all_tasks(grant: Grant, of_all: bool) -> None:
    """A bound of any kind, whatever it lets through, hides it; and so does another address."""
    assert Sight(caller("token:ci", grant)).of_all is of_all
