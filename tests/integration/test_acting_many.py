"""As many tasks as a selection may have: chosen, applied, and applied on after the API was killed in the middle."""

import json
import resource
from functools import partial
from pathlib import Path

import pytest

from api.acting.preview import MAX_MEMBERS
from daemon.model.task import State
from tests.support import rows
from tests.support.client import Answer
from tests.support.depot import Depot, an_upload, sealed
from tests.support.service import Service
from tests.support.waiting import eventually

#: Put in one transaction.
_AT_ONCE = 1000
_MORE = 50
#: What a preview, and applying it, may add to the memory of the API.
_FLAT_BYTES = 64 * 2**20


def ask(service: Service, method: str, target: str, body: object = None) -> Answer:
    """Send a request, with JSON if there is a body."""
    answer = service.client.request(method, target, None if body is None else json.dumps(body).encode())
    assert answer is not None
    return answer


def memory_bytes(pid: int) -> int:
    """What a process has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.full
def test_a_hundred_thousand_tasks_are_each_cancelled_once_whoever_dies(quick_path: Path) -> None:
    """The preview says that there are more; memory stays flat, and none is done twice."""
    with Service(quick_path) as service:
        with Depot(service.layout.directory) as depot:
            for _ in range((MAX_MEMBERS + _MORE) // _AT_ONCE + 1):
                uploads = [an_upload(f"/{number}", b"x") for number in range(_AT_ONCE)]
                for upload in uploads:
                    depot.seal(upload, b"x")
                depot.queue.put_many(sealed(*uploads), supersede=False)
            rows.write(depot.queue, status=State.HELD)
        service.start()
        api = service.processes["api"].pid
        before = memory_bytes(api)
        shown = ask(service, "POST", "/v1/tasks:preview", {"action": "cancel", "filter": {"state": "held"}}).json
        assert (shown["count"], shown["cut"]) == (MAX_MEMBERS, True)
        assert memory_bytes(api) - before < _FLAT_BYTES
        wish, where = {"selection": shown["selection"]}, f"/v1/selections/{shown['selection']}"

        def changed_more_than(number: int) -> bool:
            return int(ask(service, "GET", where).json["changed"]) > number

        for _ in range(2):
            answer = ask(service, "POST", "/v1/tasks:apply", wish)
            assert (answer.status, answer.json["state"]) == (202, "applying")
            eventually(partial(changed_more_than, answer.json["changed"]), what="some more to be cancelled")
            service.kill("api")
            service.start()
            assert ask(service, "GET", where).json["state"] == "interrupted"
        eventually(lambda: ask(service, "POST", "/v1/tasks:apply", wish).json["state"] == "applied", 240, "all of it")
        end = ask(service, "GET", where).json
        assert (end["changed"], end["skipped"], end["refused"], end["left"]) == (MAX_MEMBERS, 0, 0, 0)
        commanded = [event["task_id"] for event in service.events("task.commanded")]
        assert len(commanded) == len(set(commanded)) == MAX_MEMBERS
        assert service.mistakes() == []
