"""Who sent a request, from what it shows."""

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.access.evidence import Evidence
from api.access.identify import Doorkeeper, Known, identify
from api.access.live_tokens import changes
from api.http.forwarded import Forwarded
from daemon.access.caller import Caller
from daemon.access.decide import decide
from daemon.access.openness import strangers_may
from daemon.access.peers import Credentials, KnownPeer, known_peers
from daemon.access.token_file import Key, Token, Tokens
from daemon.access.token_text import make
from daemon.config import Config, ProxyUser
from daemon.errors import Rejected
from daemon.model.certificate import ShownCertificate
from daemon.model.grant import EVERYTHING, Grant, Permission
from daemon.process.listeners import Door

NOW = time.time()
MADE = make()
MAY = {"may": ["upload"]}
GRANT = Grant.read(MAY)
CI = Token(name="ci", keys=(Key(id=MADE.key_id, sha256=MADE.sha256, made_at=0.0),), grant=GRANT, made_at=0.0)
CONFIG = Config.model_validate({
    "certificates": [{"name": "backup", "fingerprint": "ab" * 32, **MAY}], "peers": [{"name": "deploy", "user": "1000", **MAY}],
    "users": [{"name": "*", **MAY}, {"name": "alice", "may": ["read"]}]})
LISTED = ShownCertificate(fingerprint="ab" * 32, subject="CN=backup")
OTHER = ShownCertificate(fingerprint="cd" * 32, subject="CN=backup")
ALICE = Forwarded("10.0.0.7", trusted=True, user="alice")
PROXY = Forwarded("10.0.0.7", trusted=True)
HERE = Forwarded(None)


def evidence(forwarded: Forwarded = HERE, *, bearer: str | None = None, local: bool = True, **shown: Any) -> Evidence:
    """A request that shows these things."""
    values = {"credentials": None, "certificate": None, **shown}
    door = cast(Door, SimpleNamespace(is_local=local))
    sent = [] if bearer is None else [f"Bearer {bearer}".encode()]
    return Evidence(door=door, authorization=sent, forwarded=forwarded, **values)


def who(asked: Evidence, *, closed: bool = True, **api: str) -> str:
    """The name of who asks, or the code of the refusal."""
    config = CONFIG.model_copy(update={"api": CONFIG.api.model_copy(update=api)})
    known = Known(config=config, tokens=Tokens((CI,)), peers=known_peers(config.peers), closed=closed)
    try:
        return identify(asked, known, NOW).name
    except Rejected as error:
        return error.code


@pytest.mark.parametrize(("asked", "name"), [
    (evidence(bearer=MADE.text), "token:ci"),
    (evidence(bearer=MADE.text, certificate=OTHER), "token:ci"),
    (evidence(ALICE, bearer=MADE.text), "token:ci"),
    (evidence(bearer="x", certificate=LISTED), "bad_credential"),
    (evidence(ALICE), "user:alice"), (evidence(Forwarded("10.0.0.7", trusted=True, user="bob")), "user:bob"),
    (evidence(Forwarded("10.0.0.7", user="alice")), "no_credential"),
    (evidence(PROXY, credentials=Credentials(1000, 1000)), "no_credential"),
    (evidence(PROXY, certificate=LISTED), "no_credential"),
    (evidence(certificate=replace(LISTED, expires_at=NOW)), "bad_credential"),
    (evidence(certificate=LISTED), "cert:backup"), (evidence(certificate=OTHER), "bad_credential"),
    (evidence(credentials=Credentials(1000, 5)), "peer:deploy"), (evidence(credentials=Credentials(1001, 1000)), "no_credential"),
    (evidence(credentials=Credentials(0, 0)), "no_credential"), (evidence(), "no_credential"),
])
def test_first_thing_that_is_shown_counts(asked: Evidence, name: str) -> None:
    """A token, then the user of a proxy, then a certificate, then the peer; what is wrong never counts as nothing.

    A proxy's request is its user's or nobody's, never the proxy's own.
    """
    assert who(asked) == name


def test_user_of_a_proxy_has_the_rights_of_his_own_entry() -> None:
    """A glob is for whom no entry names."""
    known = Known(config=CONFIG, tokens=Tokens(), peers=[], closed=True)
    assert [str(*identify(evidence(Forwarded(None, trusted=True, user=user)), known, NOW).links[0].grant.may)
            for user in ("alice", "bob")] == ["read", "upload"]


@pytest.mark.parametrize(("mode", "closed", "at_home", "allow_anonymous", "may"), [
    ("auto", False, True, False, True), ("auto", False, False, False, False), ("auto", False, False, True, True),
    ("auto", True, True, True, False), ("none", False, True, True, False),
    ("all", True, True, False, True), ("all", True, False, False, False), ("all", True, False, True, True)])
def test_strangers_may_everything_or_nothing(mode: Any, closed: bool, at_home: bool, allow_anonymous: bool, may: bool) -> None:
    """`auto` lets them in from here until somebody was given rights, `all` for good; other machines need another word."""
    assert strangers_may(mode, closed=closed, at_home=at_home, proxied=False, allow_anonymous=allow_anonymous) is may


def test_proxy_that_names_no_user_brings_strangers_from_elsewhere() -> None:
    """What comes by a trusted proxy does not come from here, whoever passes it on."""
    assert who(evidence(), closed=False) == "anonymous"
    assert who(evidence(PROXY), closed=False) == "no_credential"


def test_whoever_a_proxy_speaks_for_did_not_come_through_a_unix_socket() -> None:
    """Also when the proxy itself did, and says no address of his."""
    grant = Grant.read({"may": ["read"], "addresses": ["unix"]})
    config = Config(users=[ProxyUser(name="alice", grant=grant)])
    alice = identify(evidence(Forwarded(None, trusted=True, user="alice")),
                     Known(config=config, tokens=Tokens(), peers=[], closed=True), NOW)
    assert decide(alice, Permission.READ) == "address_not_allowed"


def test_those_whom_the_kernel_hides_are_nobody() -> None:
    """A user of another namespace shows a number that many have: a peer of that number is not he."""
    hidden = Credentials(65534, 65534, frozenset({65534}))
    assert not KnownPeer("a", GRANT, uid=65534, gid=65534).is_(hidden)
    assert KnownPeer("a", GRANT, gid=5).is_(Credentials(1, 2, frozenset({5})))


def test_without_peers_root_and_the_group_may_everything() -> None:
    """So it is installed; whoever lists peers says who may, and these alone."""
    assert {(peer.name, peer.grant == EVERYTHING) for peer in known_peers([])} >= {("local:root", True), ("local:incus-courier", True)}
    assert [peer.name for peer in known_peers(CONFIG.peers)] == ["peer:deploy"]


def test_root_of_what_was_handed_on_is_found_by_name() -> None:
    """Of who has no rights any more nothing is found, nor of who has the name of another kind."""
    known = Known(config=CONFIG, tokens=Tokens((CI,)), peers=known_peers(CONFIG.peers), closed=True)
    names = ["token:ci", "cert:backup", "peer:deploy", "user:alice", "token:backup", "cert:ci", "token:x/ci", "anonymous"]
    assert [bool(known.links_of(name, NOW)) for name in names] == [True] * 4 + [False] * 4


def test_changes_of_tokens_are_told_by_name() -> None:
    """Made, made anew, revoked, and taken out of the file by hand."""
    other = make()
    rotated = Token(name="ci", keys=(*CI.keys, Key(id=other.key_id, sha256=other.sha256, made_at=0.0)), grant=GRANT, made_at=0.0)
    revoked = Token(name="ci", keys=CI.keys, grant=GRANT, made_at=0.0, revoked_at=1.0)
    assert changes(Tokens(), Tokens((CI,))) == changes(Tokens((CI,)), Tokens((rotated,))) == [("access.token_made", "ci")]
    assert changes(Tokens((CI,)), Tokens((revoked,))) == changes(Tokens((CI,)), Tokens()) == [("access.token_ended", "ci")]
    assert changes(Tokens((revoked,)), Tokens((revoked,))) == changes(Tokens((revoked,)), Tokens()) == []


def test_revoked_token_is_known_as_such_while_nothing_can_be_looked_up() -> None:
    """What was handed on may be unreadable: an upload under way would go on until it can be read, and for no reason."""
    known = Known(config=CONFIG, tokens=Tokens((replace(CI, revoked_at=1.0),)), peers=[], closed=True)

    async def find_child(*_: object) -> Caller | None:
        raise Rejected("delegation_unreadable")

    with pytest.raises(Rejected) as caught:
        asyncio.run(Doorkeeper(lambda: known, find_child).identify(evidence(bearer=MADE.text)))
    assert caught.value.code == "bad_credential"
