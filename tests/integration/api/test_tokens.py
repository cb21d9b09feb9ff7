"""Tokens that somebody makes for a part of his own rights, in a real process."""

from tests.integration.api.running import Api


def test_nobody_in_particular_hands_nothing_on(shared: Api) -> None:
    """The addresses are there, and make no file where nothing is handed on; other methods are told which there are."""
    refused = shared.ask("POST", "/v1/tokens", b'{"may": ["upload"], "expires_s": 60}')
    assert (refused.status, refused.code) == (403, "action_not_allowed")
    assert shared.ask("GET", "/v1/tokens").json() == {"tokens": [], "next": None}
    assert [(reply.status, reply.code) for reply in (shared.ask("GET", "/v1/tokens/x"), shared.ask("DELETE", "/v1/tokens/x"))] == [
        (404, "token_not_found")] * 2
    assert shared.ask("PUT", "/v1/tokens", b"").headers["allow"] == "GET, POST, HEAD"
    assert not (shared.state / "access" / "handed-on").exists()
