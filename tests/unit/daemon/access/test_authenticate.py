"""Whose token somebody shows."""

from dataclasses import replace

import pytest

from daemon.access import authenticate, token_text
from daemon.access.authenticate import find_caller
from daemon.access.caller import Caller
from daemon.access.token_file import Key, Token, Tokens
from daemon.model.grant import Grant, Permission

NOW = 1000.0
MAY = {name: Grant(may=frozenset({permission})) for name, permission in
       (("team", Permission.ADMIN), ("ci", Permission.UPLOAD), ("job", Permission.READ))}
TEXTS = {name: token_text.make() for name in MAY}


def token(name: str, under: str | None = None) -> Token:
    """The token of that name."""
    made = TEXTS[name]
    return Token(name=name, grant=MAY[name], made_at=0, under=under,
                 keys=(Key(id=made.key_id, sha256=made.sha256, made_at=0),))


TOKENS = Tokens((token("team"), token("ci", "team"), token("job", "ci")))


def caller(tokens: Tokens, name: str, now: float = NOW) -> Caller | None:
    """Who shows the token of that name."""
    return find_caller(tokens, TEXTS[name].text, now, "192.0.2.1")


def test_caller_has_the_name_and_the_grants_of_all_that_he_is_under() -> None:
    """His own first; each link has the name that its limits count for."""
    found = caller(TOKENS, "job")
    assert found is not None
    assert (found.name, found.client, found.address) == ("token:team/ci/job", "token:team/ci/job", "192.0.2.1")
    assert [(link.name, link.grant) for link in found.links] == [
        ("token:team/ci/job", MAY["job"]), ("token:team/ci", MAY["ci"]), ("token:team", MAY["team"])]
    assert (first := caller(TOKENS, "team")) is not None
    assert first.name == "token:team"


@pytest.mark.parametrize("name", ["job", "ci", "team"])
def test_token_that_has_ended_lets_nobody_in_nor_those_under_it(name: str) -> None:
    """Revoked, or expired: from that very moment."""
    ended = TOKENS.by_name(name)
    assert ended is not None
    assert caller(TOKENS.put(replace(ended, revoked_at=1.0)), "job") is None
    expiring = TOKENS.put(replace(ended, expires_at=NOW))
    assert caller(expiring, "job", NOW - 0.1) is not None
    assert caller(expiring, "job", NOW) is None


def test_key_that_has_ended_lets_nobody_in_while_the_other_does() -> None:
    """As after a rotation."""
    [old], new = token("team").keys, token_text.make()
    rotated = Tokens((replace(token("team"), keys=(
        replace(old, until=NOW), Key(id=new.key_id, sha256=new.sha256, made_at=0))),))
    assert caller(rotated, "team", NOW - 0.1) is not None
    assert caller(rotated, "team", NOW) is None
    assert find_caller(rotated, new.text, NOW, None) is not None


def test_wrong_secret_of_a_known_id_and_an_unknown_id_are_compared_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody learns from the time that it takes whether there is a token of an id."""
    compared = []

    def is_same(one: str, other: str) -> bool:
        compared.append(other)
        return token_text.is_same(one, other)

    monkeypatch.setattr(authenticate, "is_same", is_same)
    stranger = token_text.make()
    forged = Tokens((replace(token("team"), keys=(Key(id=stranger.key_id, sha256=TEXTS["team"].sha256, made_at=0),)),))
    assert find_caller(forged, stranger.text, NOW, None) is None
    assert find_caller(TOKENS, stranger.text, NOW, None) is None
    assert compared == [TEXTS["team"].sha256, "0" * 64]
    assert find_caller(TOKENS, f"{TEXTS['team'].text} ", NOW, None) is None
