"""A service by HTTP, as somebody sees it who looks after it (`daemon.model.seat`).

What it answers is held to the shape that commands show; anything else is Unable, whoever may have answered.
"""

import base64
import hashlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from client.http import HttpClient, NoAnswer, Response
from client.retry import passes, pause_s
from daemon.errors import Rejected
from daemon.model.names import printable, split_instance
from daemon.model.seat import BUSIEST, Overview, SearchedTasks, TaskFilter, TaskReply, Values, instance_words
from daemon.model.task import OUTCOMES, State
from daemon.model.text import json_text
from daemon.model.upload import is_task_id
from daemon.model.verbs import VERBS
from daemon.model.view import seconds_of, when
from daemon.process.exit_status import Misused, Unable
from daemon.process.output import make_durable, warn, write_bytes

#: The most tasks that one page holds, and the most that one stream follows by their ids.
PAGE: Final = 1000
MOST_FOLLOWED: Final = 100
#: The most instances of one page.
_INSTANCES: Final = 200
#: For how long the service is asked to wait with its answer, in seconds.
_WAIT_S: Final = 30
#: Between two questions about a task where it did not wait, in seconds.
_PAUSE_S: Final = 1.0
_DECIDED: Final = frozenset(state.label for state in OUTCOMES)
#: So long after its last sign a stream counts as dead: three of the service's heartbeats, in seconds.
_SILENCE_S: Final = 45.0
#: How long nothing may come of a question, and for how long something is asked for that is to be done, in seconds.
_PATIENCE_S: Final = 60.0
_INSISTS_S: Final = 30.0
#: What of one task is refused, and says nothing of others.
_REFUSED: Final = frozenset({403, 404, 409, 410})
_LARGEST: Final = 2**63
_NONE: Final[Mapping[str, str]] = {}


class _Time:
    """A time as RFC 3339 has it."""


_NUMBER: Final = (int, float)
_MAYBE_TEXT: Final = (str, type(None))
_MAYBE_NUMBER: Final = (int, float, type(None))
_ERROR: Final = {"code": str, "message": _MAYBE_TEXT}
_PLACE: Final = {"remote": str, "project": str, "instance": str}
_TASK: Final = {
    **_PLACE, "id": str, "state": str, "path": str, "size": int, "attempts": int, "created_at": _Time,
    "updated_at": _Time, "error": (type(None), _ERROR)}
_EVENT: Final = {**_PLACE, "task_id": str, "state": str, "at": _Time, "path": str, "error_code": _MAYBE_TEXT}
_EXPLANATION: Final = {
    "stuck": bool, "summary": str, "task_id": _MAYBE_TEXT, "since": (type(None), _Time), "unblocks": str,
    "next_try_at": (type(None), _Time), "waiting": int, "error": (type(None), {**_ERROR, "hint": _MAYBE_TEXT}),
    "pushing": [{"path": str, "size_bytes": int, "sent_bytes": int, "since": _Time}]}
_PREVIEW: Final = {"selection": str, "count": int, "cut": bool, "changed": int, "refused": int}
_WHOLE_TASK: Final = {
    **_TASK, "history": [{"at": _Time, "duration_s": _NUMBER, "code": _MAYBE_TEXT, "message": _MAYBE_TEXT}],
    "receipt": (type(None), {**dict.fromkeys(("delivered_at", "mode", "way"), _MAYBE_TEXT),
                             **dict.fromkeys(("uid", "gid"), _MAYBE_NUMBER)})}
_RATES: Final = ("uploads_s", "deliveries_s", "upload_bytes_s", "delivery_bytes_s")
_TOTALS: Final = {state.label: {"tasks": int, "bytes": int} for state in State}
_WHOLE: Final = {
    "now": _Time, "version": str, "rates": dict.fromkeys(_RATES, _MAYBE_NUMBER), "counts": _TOTALS,
    "oldest_age_s": _MAYBE_NUMBER, "partials": {"number": int, "bytes": int},
    "disk": {"free_bytes": (int, type(None)), "total_bytes": (int, type(None)), "spool_bytes": int},
    "shards": [{"shard": int, "worker": (int, type(None)), "lanes": int, "sessions": int, "pushing": int,
                "fault": _MAYBE_TEXT}],
    "remotes": [{"remote": str, "up": bool, "since": _Time, "error": (type(None), _ERROR)}],
    "history": (type(None), {key: [_MAYBE_NUMBER] for key in ("uploads", "deliveries", "waiting", "failed")}),
    "problems": [{"message": str, "hint": str, "instance": _MAYBE_TEXT}]}
_ROW: Final = {"name": str, "waiting": int, "counts": _TOTALS, "oldest_age_s": _MAYBE_NUMBER, "stuck": bool,
               "why": _MAYBE_TEXT}


def fits(value: object, shape: Any) -> bool:
    """True when a value is of that shape: a type, a tuple of shapes, a list of one, or an object's keys. Pure."""
    match shape:
        case dict():
            return isinstance(value, dict) and all(
                key in value and fits(value[key], inner) for key, inner in shape.items())
        case [inner] if isinstance(shape, list):
            return isinstance(value, list) and all(fits(each, inner) for each in value)
        case tuple():
            return any(fits(value, each) for each in shape)
    if shape is _Time:
        return isinstance(value, str) and _is_time(value)
    if not isinstance(value, shape) or (isinstance(value, bool) and shape is not bool):
        return False
    # No number that cannot be counted with: JSON as Python reads it has NaN and infinity, too.
    return not isinstance(value, int | float) or abs(value) < _LARGEST


def _is_time(text: str) -> bool:
    try:
        seconds_of(text)
    except (ValueError, OverflowError):
        return False
    return text.isascii()


class HttpSeat:
    """It. For one thread."""

    def __init__(self, client: HttpClient) -> None:
        """Nothing is asked yet."""
        self._client = client

    def name_of(self, values: Values) -> str:
        """The instance of a task or an event."""
        return instance_words(values)

    def find(self, task_id: str, wait_s: float = 0.0) -> Values | None:
        """A task with its history; with `wait_s` also while the service is away for a while."""
        until = time.monotonic() + wait_s
        response = self._persist(f"/v1/tasks/{task_id}", wait_s, waits=True)
        found = self._read(response, _WHOLE_TASK)
        if found is not None and found["state"] not in _DECIDED and "preference-applied" not in response.headers:
            # No service waits where its configuration forbids that, or for everybody at once.
            time.sleep(max(0.0, min(_PAUSE_S, until - time.monotonic())))
        return found

    def search(
        self, wanted: TaskFilter, after: str | None, limit: int, patience_s: float = 0.0,
    ) -> SearchedTasks:
        """Up to `limit` tasks, and PAGE at most."""
        query = {
            **_place(wanted.instance), **_chosen(wanted), "limit": str(min(limit, PAGE)),
            **({"path": wanted.path} if wanted.path is not None else {}),
            **({"error": wanted.error} if wanted.error is not None else {}),
            **({"since": when(wanted.since)} if wanted.since is not None else {}),
            **({"until": when(wanted.until)} if wanted.until is not None else {}),
            **({"after": after} if after is not None else {})}
        page = self._ask(f"/v1/tasks?{urlencode(query)}", {"tasks": [_TASK], "next": _MAYBE_TEXT}, patience_s)
        return SearchedTasks(tuple(page["tasks"]), _after(page["next"], after))

    def happenings(self, wanted: TaskFilter) -> Iterator[Values | None]:
        """What happens, also after the service was away."""
        if len(wanted.task_ids) > MOST_FOLLOWED:
            raise Misused(f"By their ids {MOST_FOLLOWED} tasks are followed at most.")
        query = {**_place(wanted.instance), **_chosen(wanted)}
        if wanted.task_ids:
            query["task"] = ",".join(wanted.task_ids)
        path, last_id, tries = f"/v1/events?{urlencode(query)}", "", 0
        while True:
            response, why = None, "the stream ended"
            try:
                headers = {"Last-Event-ID": last_id} if last_id else {}
                with self._client.stream(path, headers, patience_s=_SILENCE_S) as (response, lines):
                    if response.status == 200:
                        if not response.headers.get("content-type", "").startswith("text/event-stream"):
                            raise Unable(self._strange())
                        for reached, name, data in blocks(lines, last_id):
                            last_id, tries = reached, 0
                            if name:
                                yield None if name == "reset" else self._event(data)
            except NoAnswer as error:
                why = str(error)
                if not last_id or not error.passes:
                    raise self._unreached(error) from None
            if response is not None and response.status != 200:
                why = self._refusal(response)
                if not last_id or not passes(response):
                    raise Unable(why)
            if not tries:
                warn(f"incus-courier: {self._client.address.name}: {why}; trying again")
            tries += 1
            time.sleep(pause_s(tries, response if response is not None and response.status != 200 else None,
                               random.random()))

    def explain(self, task_id: str | None, instance: str | None) -> Values | None:
        """Why something waits."""
        if task_id is not None:
            told = self._ask_for(f"/v1/tasks/{task_id}/explanation", _EXPLANATION)
            return None if told is None else {"id": task_id, **told}
        found = self._ask_for(_instance_address(instance or ""), {"name": str, "explanation": _EXPLANATION})
        return None if found is None else {"instance": found["name"], **found["explanation"]}

    def overview(self, most: int = BUSIEST) -> Overview:
        """How the whole stands now."""
        whole = self._ask("/v1/overview", _WHOLE)
        page = self._ask(f"/v1/instances?limit={min(most, _INSTANCES)}", {"instances": [_ROW]})
        return Overview(whole, tuple(page["instances"]))

    def names(self, beginning: str) -> list[str]:
        """Instances whose names begin so, those with most waiting first."""
        page = self._ask(f"/v1/instances?limit={_INSTANCES}", {"instances": [{"name": str}]})
        return [row["name"] for row in page["instances"] if row["name"].startswith(beginning)]

    def act(self, verb: str, wanted: TaskFilter, *, force: bool, wait: bool) -> Iterator[TaskReply]:
        """Have something done; the service waits a little for its worker."""
        verb = "retry" if verb == "flush" else verb
        if not wanted.task_ids:
            yield self._act_on_all(verb, wanted, force=force)
        for task_id in wanted.task_ids:
            yield (self._act_on(verb, task_id, force=force) if is_task_id(task_id)
                   else TaskReply(outcome="refused", task_id=task_id, reason="this is not the id of a task"))

    def save(self, task_id: str, sink: int) -> bool:
        """Write a task's bytes; they are checked on their way."""
        digest, size = hashlib.sha256(), 0
        try:
            with self._client.download(f"/v1/tasks/{task_id}/content") as (response, pieces):
                if response.status == 404:
                    return False
                if response.status != 200:
                    raise Unable(self._refusal(response))
                if not {"content-length", "repr-digest"} <= response.headers.keys():
                    raise Unable(self._strange())
                for piece in pieces:
                    digest.update(piece)
                    size += len(piece)
                    _write(task_id, sink, piece)
        except NoAnswer as error:
            useless = "; what was written is of no use" if size else ""
            raise Unable(f"{self._unreached(error)}{useless}") from None
        expected = f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
        if size != response.number("content-length") or response.headers.get("repr-digest") != expected:
            raise Unable(f"{task_id}: not the bytes that were accepted; what was written is of no use.")
        make_durable(sink)
        return True

    def unread(self) -> list[str]:
        """Nothing: where the service cannot read all, it refuses."""
        return []

    # --- acting ------------------------------------------------------------------------------------------

    def _act_on(self, verb: str, task_id: str, *, force: bool) -> TaskReply:
        address = f"/v1/tasks/{task_id}"
        response = (self._insist("DELETE", address) if verb == "delete"
                    else self._insist("POST", f"{address}/{verb}{'?force=true' if force else ''}"))
        if response.status == 204:
            return TaskReply(outcome="done", task_id=task_id)
        if response.status in _REFUSED:
            return TaskReply(outcome="refused", task_id=task_id,
                             reason=response.problem("detail") or self._why(response))
        if response.status == 202:
            asked = self._read_done(response, {"detail": str})
            return TaskReply(outcome="asked", task_id=task_id, reason=asked["detail"])
        done = self._read_done(response, {"state": str})
        return TaskReply(outcome="done", task_id=task_id, state=done["state"])

    def _act_on_all(self, verb: str, wanted: TaskFilter, *, force: bool) -> TaskReply:
        states = wanted.states or frozenset(VERBS[verb])
        chosen = {
            **_place(wanted.instance), "state": sorted(state.label for state in states),
            **({"client": wanted.client} if wanted.client is not None else {}),
            **({"before": when(wanted.until)} if wanted.until is not None else {})}
        asked = {"action": verb, "filter": chosen, **({"force": True} if force else {})}
        seen = self._read_done(self._insist("POST", "/v1/tasks:preview", asked), _PREVIEW)
        response = self._insist("POST", "/v1/tasks:apply", {"selection": seen["selection"]})
        done = self._read_done(response, _PREVIEW)
        if response.status == 202 or seen["cut"]:
            reason = done.get("detail") or f"only the newest {seen['count']} were meant; ask again for the rest"
            return TaskReply(outcome="asked", changed=done["changed"], refused=done["refused"], reason=str(reason))
        reason = "the right is missing, or there is a newer upload to the same path" if done["refused"] else None
        return TaskReply(outcome="refused" if done["refused"] else "done", changed=done["changed"],
                         refused=done["refused"], reason=reason)

    def _insist(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Response:
        """Ask for something to be done, which is safe to ask again: also where the service is away for a moment."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = b"" if body is None else json_text(body).encode()
        until, tries = time.monotonic() + _INSISTS_S, 0
        while True:
            response, why = self._try(path, 0, method=method, headers=headers, body=data)
            if response is not None and not passes(response):
                return response
            tries += 1
            wait_s = pause_s(tries, response, random.random())
            if time.monotonic() + wait_s > until:
                raise Unable(why if response is None else self._refusal(response))
            time.sleep(wait_s)

    def _read_done(self, response: Response, shape: Mapping[str, Any]) -> dict[str, Any]:
        if response.status not in {200, 202}:
            raise Unable(self._refusal(response))
        return self._fitting(response, shape)

    # --- asking ------------------------------------------------------------------------------------------

    def _ask(self, path: str, shape: Mapping[str, Any], patience_s: float = 0.0) -> dict[str, Any]:
        found = self._ask_for(path, shape, patience_s)
        if found is None:
            raise Unable(f"{self._client.address.name} does not know {printable(path)}: is it an older version?")
        return found

    def _ask_for(self, path: str, shape: Mapping[str, Any], patience_s: float = 0.0) -> dict[str, Any] | None:
        return self._read(self._persist(path, patience_s), shape)

    def _persist(self, path: str, patience_s: float, *, waits: bool = False) -> Response:
        """The answer, also where the service is away for a while; `waits` has it wait for news meanwhile."""
        until, tries = time.monotonic() + patience_s, 0
        while True:
            left_s = max(0.0, until - time.monotonic())
            response, why = self._try(path, min(_WAIT_S, round(left_s)) if waits else 0)
            if response is not None and not passes(response):
                return response
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise Unable(why if response is None else self._refusal(response))
            tries += 1
            time.sleep(min(left_s, pause_s(tries, response, random.random())))

    def _try(
        self, path: str, wait_s: int, *, method: str = "GET", headers: Mapping[str, str] = _NONE,
        body: bytes | None = None,
    ) -> tuple[Response | None, str]:
        """The answer; or None, and why there is none, where that passes. Raises Unable where it does not."""
        heads = {**headers, **({"Prefer": f"wait={wait_s}"} if wait_s else {})}
        try:
            return self._client.request(method, path, headers=heads, body=body, patience_s=wait_s + _PATIENCE_S), ""
        except NoAnswer as error:
            trouble = self._unreached(error)
            if not error.passes:
                raise trouble from None
            return None, str(trouble)

    def _read(self, response: Response, shape: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was answered; None where there is no such thing. Raises Unable."""
        if response.status == 404:
            return None
        if response.status != 200:
            raise Unable(self._refusal(response))
        return self._fitting(response, shape)

    def _fitting(self, response: Response, shape: Mapping[str, Any]) -> dict[str, Any]:
        found = response.json()
        if not isinstance(found, dict) or not fits(found, shape):
            raise Unable(self._strange())
        return found

    def _strange(self) -> str:
        return f"{self._client.address.name} answers what no such service does: is the address right?"

    def _event(self, data: str) -> Values:
        return self._fitting(Response(200, {}, data.encode()), _EVENT)

    def _refusal(self, response: Response) -> str:
        return f"{self._client.address.name}: {self._why(response)}"

    def _why(self, response: Response) -> str:
        """What a refusal says."""
        said = [response.problem("detail") or response.problem("title") or f"it answers {response.status}.",
                response.problem("hint")]
        code = response.problem("code")
        return f"{' '.join(filter(None, said))}{f' [{code}]' if code else ''}"

    def _unreached(self, error: NoAnswer) -> Unable:
        return Unable(f"{self._client.address.name} does not answer: {error}")


def _write(task_id: str, sink: int, piece: bytes) -> None:
    """Write bytes that were fetched: what fails there is no fault of the connection. Raises Unable."""
    try:
        write_bytes(sink, piece)
    except OSError as error:
        raise Unable(f"{task_id}: {error.strerror}; what was written is of no use") from None


def blocks(lines: Iterator[bytes], last_id: str) -> Iterator[tuple[str, str, str]]:
    """The events of a stream: the id that counts after each, its name, '' for what is none, and its data. Pure."""
    name, data = "", list[str]()
    for line in lines:
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        key, _, value = text.partition(":")
        value = value.removeprefix(" ")
        match key:
            case "id" if value.isascii() and value.isprintable():
                last_id = value
            case "event":
                name = value
            case "data":
                data.append(value)
            case "" if not text:
                yield last_id, name if data else "", "\n".join(data)
                name, data = "", []


def _chosen(wanted: TaskFilter) -> dict[str, str]:
    chosen = {"client": wanted.client or "", "state": ",".join(sorted(state.label for state in wanted.states))}
    return {name: value for name, value in chosen.items() if value}


def _place(instance: str | None) -> dict[str, str]:
    if instance is None:
        return {}
    name, project = _parts(instance)
    return {"instance": name, **({"project": project} if project else {})}


def _instance_address(instance: str) -> str:
    name, project = _parts(instance)
    return f"/v1/instances/{quote(name)}{f'?project={quote(project)}' if project else ''}"


def _parts(instance: str) -> tuple[str, str | None]:
    """`[remote:]instance`, and the project. Raises Misused."""
    try:
        remote, project, name = split_instance(instance)
    except Rejected as error:
        raise Misused(f"{printable(instance)}: {error.detail} Give [remote:][project/]instance.") from None
    return f"{remote}:{name}" if remote else name, project


def _after(address: str | None, before: str | None) -> str | None:
    """The task after which the next page begins; None: there is none, or it leads nowhere."""
    found: Sequence[str] = parse_qs(urlsplit(address).query).get("after", ()) if address else ()
    leads_on = len(found) == 1 and is_task_id(found[0]) and (before is None or found[0] < before)
    return found[0] if leads_on else None
