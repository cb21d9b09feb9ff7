"""Tokens that somebody makes for a part of his own rights, in a real process."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from daemon.model.grant import Grant
from tests.integration.api.running import Api, Reply
from tests.support.tokens import change_token, make_token, revoke_token


def test_nobody_in_particular_hands_nothing_on(shared: Api) -> None:
    """The addresses are there, and make no file where nothing is handed on; other methods are told which there are."""
    refused = shared.ask("POST", "/v1/tokens", b'{"may": ["upload"], "expires_s": 60}')
    assert (refused.status, refused.code) == (403, "action_not_allowed")
    assert shared.ask("GET", "/v1/tokens").json() == {"tokens": [], "next": None}
    assert [(reply.status, reply.code) for reply in (shared.ask("GET", "/v1/tokens/x"), shared.ask("DELETE", "/v1/tokens/x"))] == [
        (404, "token_not_found")] * 2
    assert shared.ask("PUT", "/v1/tokens", b"").headers["allow"] == "GET, POST, HEAD"
    assert not (shared.state / "access" / "handed-on").exists()


def test_what_is_handed_on_is_good_for_what_it_says_and_ends_with_its_maker(start: Callable[..., Api]) -> None:
    """One file to one path: a second one, another path, and more than its maker may, are refused; with him it is gone."""
    api = start()
    maker = make_token(api.file, "ci", may=["upload", "read", "delegate"], instances=["web-*"])
    asked: dict[str, Any] = {"Authorization": f"Bearer {maker}"}
    api.logged("tokens.reloaded")
    wish = {"may": ["upload"], "paths": ["/srv/report"], "max_uploads": 1, "max_total_bytes": 10, "expires_s": 3600}

    def hand_on(shown: dict[str, Any], **changed: object) -> dict[str, Any]:
        made = api.ask("POST", "/v1/tokens", json.dumps({**wish, **changed}).encode(), **shown)
        assert made.status == 201, made.body
        return {"Authorization": f"Bearer {made.json()['token']}"}

    def put(shown: dict[str, Any], target: str, body: bytes | Iterator[bytes] = b"x" * 10) -> Reply:
        return api.ask("PUT", f"/v1/instances/{target}", body, **shown)

    link = hand_on(asked)
    assert put(link, "web-1/files/srv/other").code == "path_not_allowed"
    assert put(link, "db-1/files/srv/report").code == "instance_not_allowed"
    assert put(link, "web-1/files/srv/report", b"x" * 11).code == "used_up"
    assert put(link, "web-1/files/srv/report", iter([b"x"])).code == "bad_length"
    taken = put(link, "web-1/files/srv/report")
    assert (taken.status, taken.json()["client"].startswith("token:ci/")) == (202, True)
    assert put(link, "web-1/files/srv/report").code == "used_up"
    elsewhere = hand_on(asked, addresses=["192.0.2.7"])
    assert put(elsewhere, "web-1/files/srv/report").code == "address_not_allowed"
    below = hand_on(hand_on(asked, may=["upload", "delegate"], max_uploads=5))
    assert put(below, "web-1/files/srv/report").status == 202
    spare = hand_on(asked)
    change_token(api.file, "ci", grant=Grant.read({"may": ["upload", "delegate"], "instances": ["db-*"]}))
    api.logged("tokens.reloaded", 2)
    assert put(spare, "web-1/files/srv/report").code == "instance_not_allowed"
    revoke_token(api.file, "ci")
    api.logged("tokens.reloaded", 3)
    assert {put(shown, "db-1/files/srv/report").status for shown in (link, below, spare)} == {401}
    assert api.stop() == 0
    again = start()
    assert {again.ask("GET", "/v1/tasks", **shown).status for shown in (link, below, spare, asked)} == {401}
