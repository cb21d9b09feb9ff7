"""What tus is answered, whatever keeps the uploads."""

from base64 import b64encode
from typing import cast

import pytest

from api.following.outcomes import Outcomes
from api.http.refusal_log import RefusalLog
from api.live_config import LiveConfig
from api.resumable.engine import Resumable
from api.resumable.values import Checksum
from api.routes.endpoint import auditing
from api.routes.tus import TusRoutes
from daemon.config import load
from daemon.errors import Rejected
from tests.support.addresses import Addresses, Told
from tests.support.pretended_engine import ID, TASK, PretendedEngine, PretendedOutcomes

METADATA = ",".join(f"{key} {b64encode(value).decode()}" for key, value in {"instance": b"c1", "path": b"/srv/a"}.items())
PART = "application/offset+octet-stream"


class Tus:
    """The addresses, and what stands for the engine behind them."""

    def __init__(self) -> None:
        """Nothing is there yet."""
        self.engine, self.outcomes = PretendedEngine(), PretendedOutcomes()
        live = LiveConfig(load(None))
        routes = TusRoutes(live, cast(Resumable, self.engine), cast(Outcomes, self.outcomes))
        self.addresses = Addresses(live, routes.routes(auditing(RefusalLog())))

    def ask(self, method: str, target: str = f"/v1/tus/{ID}", body: bytes = b"", **headers: str) -> Told:
        """One request of somebody who speaks the version; an empty header is left out."""
        said = {"Tus_Resumable": "1.0.0", **headers}
        return self.addresses.ask(method, target, body, **{name: value for name, value in said.items() if value})

    def create(self, body: bytes = b"", **headers: str) -> Told:
        """Make an upload of three bytes."""
        return self.ask("POST", "/v1/tus/", body, **{"Upload_Length": "3", "Upload_Metadata": METADATA, **headers})


@pytest.fixture
def tus() -> Tus:
    """The addresses, with no upload."""
    return Tus()


def test_upload_is_made_asked_for_filled_and_ended(tus: Tus) -> None:
    """Each answer says what the text of tus demands of it; the address that is told is relative."""
    made = tus.create()
    assert (made.status, made.headers["location"], made.headers["upload-expires"]) == (201, ID, "Fri, 01 Jan 2100 00:00:00 GMT")
    stands = tus.ask("HEAD")
    assert (stands.status, stands.headers["upload-offset"], stands.headers["upload-length"]) == (200, "0", "3")
    assert (stands.headers["upload-metadata"], stands.headers["cache-control"]) == (METADATA, "no-store")
    part = tus.ask("PATCH", body=b"ab", Content_Type=PART, Upload_Offset="0")
    assert (part.status, part.headers["upload-offset"], part.body) == (204, "2", b"")
    assert part.headers["upload-expires"] == "Fri, 01 Jan 2100 00:00:00 GMT"
    wrong = tus.ask("PATCH", body=b"c", Content_Type=PART, Upload_Offset="1")
    assert (wrong.status, wrong.code, wrong.headers["upload-offset"], tus.engine.stored) == (409, "wrong_offset", "2", b"ab")
    last = tus.ask("PATCH", body=b"c", Content_Type=PART, Upload_Offset="2")
    assert (last.status, last.headers["upload-offset"], last.headers["task-id"]) == (204, "3", TASK)
    assert "upload-expires" not in last.headers
    ended = tus.ask("DELETE")
    assert ended.status == 204
    gone = tus.ask("HEAD")
    assert (gone.status, "upload-offset" in gone.headers) == (404, False)
    assert {told.headers["tus-resumable"] for told in (made, stands, part, wrong, last, ended, gone)} == {"1.0.0"}


def test_first_part_may_come_along(tus: Tus) -> None:
    """The answer says how far it went; without its media type nothing is made."""
    assert tus.create(b"ab").code == "part_type"
    assert tus.engine.asked == []
    made = tus.create(b"ab", Content_Type=PART)
    assert (made.status, made.headers["upload-offset"]) == (201, "2")


def test_upload_whose_first_part_was_refused_is_not_left_behind(tus: Tus) -> None:
    """Nobody was told where it is."""
    sha1 = f"sha1 {b64encode(bytes(20)).decode()}"
    tus.engine.part_trouble = Rejected("checksum_mismatch")
    assert tus.create(b"abc", Content_Type=PART, Upload_Checksum=sha1).status == 460
    assert tus.engine.asked[-2:] == [("append", ID, 0, 3, None, None, Checksum("sha1", bytes(20))), ("end", ID)]


def test_length_may_come_later(tus: Tus) -> None:
    """Until then it is said that it will."""
    assert tus.create(Upload_Length="", Upload_Defer_Length="1").status == 201
    assert tus.ask("HEAD").headers["upload-defer-length"] == "1"
    assert tus.ask("PATCH", body=b"abc", Content_Type=PART, Upload_Offset="0", Upload_Length="3").headers["task-id"] == TASK


def test_empty_upload_is_complete_at_once(tus: Tus) -> None:
    """There is no part that would complete it."""
    made = tus.create(Upload_Length="0")
    assert (made.status, made.headers["upload-offset"], made.headers["task-id"]) == (201, "0", TASK)


@pytest.mark.parametrize("version", ["", "0.2.2", "1.0.1"])
def test_another_version_is_refused_and_nothing_is_done(tus: Tus, version: str) -> None:
    """Whatever was asked for."""
    for method, target in (("POST", "/v1/tus/"), ("HEAD", f"/v1/tus/{ID}"), ("PATCH", f"/v1/tus/{ID}"), ("DELETE", f"/v1/tus/{ID}")):
        told = tus.ask(method, target, Tus_Resumable=version, Upload_Length="3", Upload_Metadata=METADATA)
        assert (told.status, told.headers["tus-version"], told.headers["tus-resumable"]) == (412, "1.0.0", "1.0.0")
    assert tus.engine.asked == []


def test_everybody_is_told_what_is_spoken(tus: Tus) -> None:
    """Also who shows no credential, and speaks no version."""
    tus.addresses.refused = Rejected("no_credential")
    for target in ("/v1/tus/", f"/v1/tus/{ID}"):
        told = tus.ask("OPTIONS", target, Tus_Resumable="")
        assert (told.status, told.headers["tus-version"], told.headers["tus-checksum-algorithm"]) == (200, "1.0.0", "sha1,sha256")
        assert told.headers["tus-extension"] == "creation,creation-with-upload,creation-defer-length,termination,checksum,expiration"
        assert told.headers["tus-max-size"] == str(10 * 2**30)
    refused = tus.create()
    assert (refused.code, refused.headers["tus-resumable"]) == ("no_credential", "1.0.0")


def test_post_may_stand_for_another_method(tus: Tus) -> None:
    """Where nothing but GET and POST comes through; a GET or a HEAD changes nothing by it."""
    tus.create()
    assert tus.ask("POST", body=b"ab", Content_Type=PART, Upload_Offset="0", X_HTTP_Method_Override="PATCH").status == 204
    assert tus.ask("HEAD", X_HTTP_Method_Override="DELETE").headers["upload-offset"] == "2"
    assert tus.ask("POST", X_HTTP_Method_Override="GET").code == "bad_override"
    assert tus.ask("POST").status == 405
    assert tus.ask("POST", X_HTTP_Method_Override="DELETE").status == 204


def test_what_passes_is_told_so_that_a_client_goes_on_where_it_was(tus: Tus) -> None:
    """A HEAD gets 423, a part 503, also when its line stood still; rates count at the making of an upload alone."""
    tus.create()
    for code in ("storage_failed", "upload_busy", "rate_limited", "no_room"):
        tus.engine.trouble = Rejected(code)
        told = tus.ask("HEAD")
        assert (told.status, told.code) == (423, code)
    tus.engine.trouble = Rejected("backlog_full")
    told = tus.ask("PATCH", body=b"ab", Content_Type=PART, Upload_Offset="0")
    assert (told.status, told.headers["retry-after"]) == (503, "10")
    tus.engine.trouble = Rejected("too_slow")
    assert tus.ask("PATCH", body=b"ab", Content_Type=PART, Upload_Offset="0").status == 503
    tus.engine.trouble = Rejected("rate_limited")
    assert tus.create().status == 429
    tus.addresses.refused = Rejected("delegation_unreadable")
    assert (tus.ask("HEAD").status, tus.ask("PATCH").status) == (423, 503)


@pytest.mark.parametrize(("headers", "code"), [
    ({"Content_Type": ""}, "part_type"), ({"Upload_Offset": ""}, "bad_upload_header"), ({"Upload_Checksum": "md5 YQ=="}, "bad_checksum"),
    ({"Content_Encoding": "gzip"}, "wrapped_body"), ({"Content_Range": "bytes 0-1/3"}, "bad_range"), ({"Content_Digest": "sha-256=:YQ==:"}, "unchecked_digest"),
    ({"Trailer": "x, Upload-Checksum"}, "unchecked_digest"), ({"If_Match": "*"}, "bad_condition"),
])
def test_part_that_is_not_plain_is_refused_before_it_is_taken(tus: Tus, headers: dict[str, str], code: str) -> None:
    """Nothing of it reaches the upload."""
    tus.create()
    said = {"Content_Type": PART, "Upload_Offset": "0", **headers}
    assert tus.ask("PATCH", body=b"ab", **said).code == code
    assert tus.engine.asked == [("create", 3)]


def test_forgotten_slash_is_told(tus: Tus) -> None:
    """An address relative to the one without it would lead elsewhere."""
    told = tus.ask("POST", "/v1/tus", Upload_Length="3", Upload_Metadata=METADATA)
    assert (told.status, told.json["detail"]) == (404, "The address of tus ends in a slash: /v1/tus/")
    assert "allow" not in told.headers
    assert tus.ask("POST", "/v1/tus/?instance=c1", Upload_Length="3", Upload_Metadata=METADATA).code == "bad_query"


def test_outcome_is_waited_for_where_an_upload_ends(tus: Tus) -> None:
    """By its last part or at its making; what is not complete is answered at once."""
    made = tus.create(Prefer="wait=5")
    part = tus.ask("PATCH", body=b"ab", Content_Type=PART, Upload_Offset="0", Prefer="wait=5")
    assert ("preference-applied" in made.headers, "preference-applied" in part.headers, tus.outcomes.waited_for) == (False, False, [])
    last = tus.ask("PATCH", body=b"c", Content_Type=PART, Upload_Offset="2", Prefer="wait=5")
    assert (last.status, last.headers["preference-applied"], last.headers["task-id"]) == (204, "wait=5", TASK)
    whole = tus.create(Upload_Length="0", Prefer="wait=7")
    assert (whole.status, whole.headers["preference-applied"], tus.outcomes.waited_for) == (201, "wait=7", [TASK, TASK])
