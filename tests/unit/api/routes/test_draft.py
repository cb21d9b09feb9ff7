"""What the IETF's draft of resumable uploads is answered, whatever keeps the uploads."""

from typing import Any, cast
from urllib.parse import urljoin

import pytest

from api.access.requester import Requester
from api.following.outcomes import Outcomes
from api.http.refusal_log import RefusalLog
from api.http.response import Answer, Receive, Scope, text_answer
from api.live_config import LiveConfig
from api.queries import task_query
from api.resumable.engine import Resumable
from api.routes.draft import DraftRoutes
from api.routes.endpoint import Endpoint, Route, auditing
from api.uploads.receive import Accepted
from daemon.config import load
from daemon.errors import Rejected
from tests.support.addresses import Addresses, Told
from tests.support.pretended_engine import ID, TASK, PretendedEngine, PretendedOutcomes

FILE = "/v1/instances/c1/files/srv/a%20b"
UPLOAD = f"/v1/resumable/{ID}"
PROBLEMS = "https://iana.org/assignments/http-problem-types#"


async def plain(scope: Scope, receive: Receive) -> Answer:
    """Stands for an upload like any other."""
    return text_answer(202, "plain")


async def describe(accepted: Accepted, requester: Requester, *, waited: bool) -> dict[str, Any]:
    """Once it was waited for, all is delivered."""
    return {**task_query.describe_new(accepted.upload, accepted.task_id), **({"state": "delivered"} if waited else {})}


class Draft:
    """The addresses, and what stands for the engine behind them."""

    def __init__(self) -> None:
        """Nothing is there yet."""
        self.engine, self.outcomes = PretendedEngine(), PretendedOutcomes()
        live = LiveConfig(load(None))
        routes = DraftRoutes(live, cast(Resumable, self.engine), cast(Outcomes, self.outcomes), describe)
        file = Route("/v1/instances/{instance}/files/{path:path}", routes.at_file(Endpoint({"PUT": plain})))
        self.addresses = Addresses(live, [file, *routes.routes(auditing(RefusalLog()))])

    def ask(self, method: str, target: str = UPLOAD, body: bytes = b"", **headers: str) -> Told:
        """One request by interop number 6; an empty header is left out."""
        said = {"Upload_Draft_Interop_Version": "6", **headers}
        return self.addresses.ask(method, target, body, **{name: value for name, value in said.items() if value})

    def part(self, body: bytes, offset: int, complete: str, **headers: str) -> Told:
        """Send a part."""
        said = {"Content_Type": "application/partial-upload", "Upload_Offset": str(offset), "Upload_Complete": complete, **headers}
        return self.ask("PATCH", body=body, **said)


@pytest.fixture
def draft() -> Draft:
    """The addresses, with no upload."""
    return Draft()


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_client_is_told_where_it_can_go_on_before_its_answer(draft: Draft, method: str) -> None:
    """The address leads there from the file's, whatever path a proxy has put in front; the answer is that of any upload."""
    told = draft.ask(method, f"{FILE}?mode=0640", b"abc", Upload_Complete="?1")
    [(status, informed)] = told.informed
    assert (status, informed["Upload-Draft-Interop-Version"]) == (104, "6")
    assert urljoin(f"https://x/courier{FILE}", informed["Location"]) == f"https://x/courier{UPLOAD}"
    assert informed["Upload-Limit"].startswith(f"max-size={10 * 2**30}, max-age=")
    assert (told.status, told.json["id"], told.headers["location"]) == (202, TASK, f"/v1/tasks/{TASK}")
    assert (told.headers["upload-complete"], told.headers["upload-offset"]) == ("?1", "3")
    assert draft.engine.request is not None
    assert (draft.engine.request.destination.path, draft.engine.request.mode, draft.engine.request.length) == ("/srv/a b", 0o640, 3)


def test_nothing_comes_before_the_answer_where_a_proxy_says_so(draft: Draft) -> None:
    """Some take it for the answer; where the upload goes on is said in that, too."""
    assert draft.ask("PUT", FILE, b"abc", Upload_Complete="?1", X_Interim="no").informed == ()
    made = draft.ask("PUT", FILE, b"a", Upload_Complete="?0", X_Interim="no")
    assert (made.informed, urljoin(FILE, made.headers["location"])) == ((), UPLOAD)


def test_file_may_come_in_parts(draft: Draft) -> None:
    """Each answer says how the upload stands, and the last is that of any upload."""
    made = draft.ask("POST", FILE, b"a", Upload_Complete="?0", Upload_Length="3")
    assert (made.status, made.headers["upload-complete"], made.headers["upload-offset"], made.headers["upload-length"]) == (201, "?0", "1", "3")
    assert urljoin(FILE, made.headers["location"]) == UPLOAD
    stands = draft.ask("HEAD")
    assert (stands.status, stands.headers["upload-offset"], stands.headers["upload-complete"]) == (204, "1", "?0")
    assert (stands.headers["cache-control"], "upload-limit" in stands.headers) == ("no-store", True)
    assert (draft.part(b"b", 1, "?0").status, draft.engine.asked[-1]) == (204, ("append", ID, 1, 1, None, None, None))
    wrong = draft.part(b"b", 1, "?0")
    assert (wrong.status, wrong.headers["upload-offset"], wrong.headers["upload-complete"]) == (409, "2", "?0")
    assert wrong.json["type"] == f"{PROBLEMS}mismatching-upload-offset"
    last = draft.part(b"c", 2, "?1")
    assert (last.status, last.json["id"], last.headers["upload-complete"], draft.engine.stored) == (202, TASK, "?1", b"abc")
    assert draft.ask("HEAD").headers["upload-complete"] == "?1"


def test_file_is_complete_when_all_of_its_announced_bytes_are_there(draft: Draft) -> None:
    """Whatever its last part says: some clients never say that it was the last."""
    draft.ask("POST", FILE, b"a", Upload_Complete="?0", Upload_Length="3")
    last = draft.part(b"bc", 1, "?0")
    assert (last.status, last.json["id"], last.headers["upload-complete"]) == (202, TASK, "?1")


def test_file_of_unknown_length_is_complete_when_it_is_said(draft: Draft) -> None:
    """The last part may be empty."""
    draft.ask("POST", FILE, b"a", Upload_Complete="?0")
    assert "upload-length" not in draft.ask("HEAD").headers
    assert draft.part(b"bc", 1, "?0").headers["upload-complete"] == "?0"
    assert draft.part(b"", 3, "?1").headers["upload-complete"] == "?1"


def test_lengths_that_contradict_each_other_are_refused(draft: Draft) -> None:
    """By the draft's own type of problem, and nothing is made."""
    told = draft.ask("PUT", FILE, b"abc", Upload_Complete="?1", Upload_Length="4")
    assert (told.status, told.json["type"], told.informed) == (400, f"{PROBLEMS}inconsistent-upload-length", ())
    assert draft.engine.asked == []


def test_other_versions_are_told_nothing(draft: Draft) -> None:
    """A whole file is an upload like any other; the beginning of one is refused."""
    for number in ("", "4", "7"):
        told = draft.ask("PUT", FILE, b"abc", Upload_Complete="?1", Upload_Draft_Interop_Version=number)
        assert (told.body, told.informed) == (b"plain", ())
        assert draft.ask("PUT", FILE, b"abc", Upload_Complete="?0", Upload_Draft_Interop_Version=number).code == "unknown_interop"
        assert draft.part(b"a", 0, "?0", Upload_Draft_Interop_Version=number).code == "unknown_interop"
    assert draft.ask("PUT", FILE, b"abc").body == b"plain"
    assert draft.ask("POST", FILE, b"abc").status == 405
    assert draft.ask("PUT", FILE, b"abc", Upload_Complete="yes").code == "bad_upload_header"
    assert draft.engine.asked == []


def test_part_has_a_media_type_from_interop_number_6_on(draft: Draft) -> None:
    """Before that it had none."""
    draft.ask("POST", FILE, Upload_Complete="?0")
    assert draft.part(b"a", 0, "?0", Content_Type="").code == "part_type"
    assert draft.part(b"a", 0, "?0", Content_Type="", Upload_Draft_Interop_Version="5").status == 204


def test_empty_file_is_complete_at_once(draft: Draft) -> None:
    """Also when it was only announced: there is nothing that could still come."""
    assert draft.ask("POST", FILE, Upload_Complete="?0", Upload_Length="0").status == 202


def test_limits_can_be_asked_for(draft: Draft) -> None:
    """And are told with the refusal of what is beyond them."""
    told = draft.ask("OPTIONS", FILE)
    assert (told.status, told.headers["accept-patch"], told.headers["upload-limit"]) == (204, "application/partial-upload", f"max-size={10 * 2**30}")
    draft.engine.trouble = Rejected("too_large")
    refused = draft.ask("PUT", FILE, b"abc", Upload_Complete="?1")
    assert (refused.status, refused.headers["upload-limit"], refused.informed) == (413, f"max-size={10 * 2**30}", ())


def test_upload_is_ended_or_is_not_there(draft: Draft) -> None:
    """What passes by itself is no reason to begin anew."""
    draft.ask("POST", FILE, Upload_Complete="?0")
    draft.engine.trouble = Rejected("storage_failed")
    assert draft.ask("HEAD").status == 423
    assert draft.ask("DELETE").status == 204
    assert (draft.ask("HEAD").status, draft.part(b"a", 0, "?0").status, draft.ask("DELETE").status) == (404, 404, 404)


def test_outcome_is_waited_for_where_an_upload_ends(draft: Draft) -> None:
    """By its last part or with all of it at once: the answer is the task as it is then."""
    made = draft.ask("POST", FILE, b"a", Upload_Complete="?0", Prefer="wait=5")
    assert ("preference-applied" in made.headers, draft.outcomes.waited_for) == (False, [])
    last = draft.part(b"bc", 1, "?1", Prefer="wait=5")
    assert (last.status, last.headers["preference-applied"], last.json["state"]) == (202, "wait=5", "delivered")
    whole = draft.ask("PUT", FILE, b"abc", Upload_Complete="?1")
    assert (whole.json["state"], "preference-applied" in whole.headers, draft.outcomes.waited_for) == ("queued", False, [TASK])
