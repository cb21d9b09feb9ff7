"""POST /v1/uploads: the files of a form, each an upload of its own, and one answer that tells of all of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from api.access.requester import Requester
from api.following.outcomes import Headers, Outcomes
from api.http.description import Content, Description, Leads, Outcome
from api.http.parameters import collect, read_query
from api.http.problem import PROBLEM_SCHEMA, describe_problem, problem
from api.http.response import PEER, REQUESTER, Answer, Receive, Scope, json_answer, json_bytes
from api.live_config import LiveConfig
from api.routes.endpoint import Endpoint, Route
from api.uploads.body import ClientGone
from api.uploads.fields import FORM_ANSWER_HEADERS, FORM_HEADERS, UPLOAD_REFUSALS
from api.uploads.form import (
    FORM,
    MAX_FIELD_BYTES,
    Fields,
    FormHead,
    FormTarget,
    PartHead,
    read_file,
    read_head,
    read_part,
    read_target,
)
from api.uploads.form_body import MAX_FILES, FormBody
from api.uploads.intake import Uploads
from api.uploads.receive import Accepted, traced
from daemon.errors import Rejected
from daemon.model.names import printable
from daemon.model.schema import YES_OR_NO, answer, many, or_null, saying, text, whole_number
from daemon.model.view import WHOLE_TASK


class Describe(Protocol):
    """Describes the task of an upload that was accepted, as JSON values."""

    async def __call__(self, accepted: Accepted, requester: Requester, *, waited: bool) -> dict[str, Any]:
        """As it is now if its outcome was `waited` for. Raises Rejected when it cannot be read."""


#: Where they are sent.
ADDRESS: Final = "/v1/uploads"
#: What an answer may have, so that it is no burden until its client has read it.
MAX_ANSWER_BYTES: Final = 2**20
#: So much of a file's name is told.
_NAME_LENGTH: Final = 255
_NO_PARAMETERS: Final[frozenset[str]] = frozenset()
#: The statuses of what is wrong with one file alone, so that the next one may be taken.
_FILE_ALONE: Final = frozenset({400, 403, 413, 415, 422})
#: What `FormReport.answer` makes.
REPORT: Final = answer("FormReport", {
    "uploads": saying(many(answer("FormUpload", {
        "filename": text("as it was sent"),
        "status": whole_number(202, 599, "202: it is safe on the disk, and will be delivered"),
        "replayed": saying(YES_OR_NO, "whether it was accepted before"),
        "task": WHOLE_TASK,
        "problem": PROBLEM_SCHEMA,
    }, maybe=["replayed", "task", "problem"])), "the files that were read, in order: each has a task or a problem"),
    "problem": {**or_null(PROBLEM_SCHEMA), "description": "why no more were read; null: there were no more"},
})
POSTING: Final = Description(
    operation_id="postForm", group="Uploads", summary="Upload the files of a form",
    text="Each file is an upload of its own. Fields that are empty are not there. Where no file was accepted the answer"
    " is the first refusal, with `uploads` and `problem` besides. [forms.md](forms.md) has more.",
    parameters=FORM_HEADERS,
    body=Content(media_type="multipart/form-data", schema=FORM, meaning="the fields, and the files after them",
                 refuses=(
        "not_a_form", "bad_form", "bad_field", "long_form", "no_file", "same_path", "bad_instance", "bad_path",
        "bad_name", "bad_project", "bad_mode", "bad_owner", "bad_flag", "bad_digest")),
    outcomes={202: Outcome(
        meaning="At least one file was accepted.", content=Content(schema=REPORT), headers=FORM_ANSWER_HEADERS, leads=(
            Leads(operation_id="getTask", given={"task_id": "$response.body#/uploads/0/task/id"}),))},
    refuses=(*UPLOAD_REFUSALS, "bad_query"),
    example="""curl -F instance=web1 -F path=/srv/ -F file=@report.pdf -F file=@annex.pdf \\
     http://127.0.0.1:8420/v1/uploads""")


@dataclass
class FormReport:
    """What became of the files of a form so far."""

    #: For each file its name, and its task or its problem.
    told: list[dict[str, Any]] = field(default_factory=list)
    #: What was accepted, by its place in what is told.
    accepted: dict[int, Accepted] = field(default_factory=dict)
    #: Why the first one was refused that was.
    first_refusal: Rejected | None = None
    #: Why no more was read; None: there was no more.
    end: Rejected | None = None
    size_bytes: int = 0

    def accept(self, filename: str, accepted: Accepted, task: Mapping[str, Any]) -> None:
        """Tell of a file that is safe."""
        self.accepted[len(self.told)] = accepted
        self._tell({"filename": filename, "status": 202, "replayed": accepted.replayed, "task": task})

    def refuse(self, filename: str, refusal: Rejected) -> None:
        """Tell of a file of which nothing is kept."""
        self.first_refusal = self.first_refusal or refusal
        self._tell({"filename": filename, "status": refusal.kind.status, "problem": describe_problem(refusal)})
        if refusal.kind.status not in _FILE_ALONE:
            self.end = refusal

    def check_room(self) -> None:
        """Raise Rejected('long_form') when no more can be told."""
        if len(self.told) >= MAX_FILES or self.size_bytes >= MAX_ANSWER_BYTES:
            raise Rejected("long_form", "The answer can tell of no more files.")

    def _tell(self, about: dict[str, Any]) -> None:
        self.told.append(about)
        self.size_bytes += len(json_bytes(about))

    def answer(self) -> Answer:
        """The answer: 202 if a file was accepted, else the first refusal. Raises Rejected when there was no file."""
        if not self.told:
            raise self.end or Rejected("no_file")
        end = None if self.end is None else describe_problem(self.end)
        if not self.accepted and self.first_refusal is not None:
            return problem(self.first_refusal, uploads=self.told, problem=end)
        return json_answer(202, {"uploads": self.told, "problem": end})


class FormRoutes:
    """What the address of forms does."""

    def __init__(self, live: LiveConfig, uploads: Uploads, outcomes: Outcomes, describe: Describe) -> None:
        self._live = live
        self._uploads = uploads
        self._outcomes = outcomes
        self._describe = describe

    def routes(self) -> list[Route]:
        """The address."""
        return [Route(ADDRESS, Endpoint({"POST": POSTING.by(self.post)}))]

    async def post(self, scope: Scope, receive: Receive) -> Answer:
        """POST /v1/uploads: take the files of a form, and tell of each what became of it."""
        peer, requester = scope["state"][PEER], scope["state"][REQUESTER]
        try:
            read_query(scope["query_string"], _NO_PARAMETERS)
            head = read_head(collect(scope["headers"]))
            await self._uploads.expect(head.length, peer, requester)
            body = FormBody(receive, head.boundary, length=head.length, pace=self._live.pace())
        except Rejected as refusal:
            self._uploads.tell(refusal, peer, requester)
            raise
        form = _Form(body, head, self._live, self._uploads, self._describe, peer, requester)
        report = await form.take()
        waited = await self._wait(report, scope, receive)
        taken = next((accepted.upload for accepted in report.accepted.values()), None)
        return report.answer().plus(*self._uploads.rate_headers(requester.caller), *waited, *traced(taken))

    async def _wait(self, report: FormReport, scope: Scope, receive: Receive) -> Headers:
        """Wait for what becomes of its files, if that is wanted, and tell of them as they are then."""
        if report.end is not None or not report.accepted:
            return ()
        waited = await self._outcomes.wait(
            scope, receive, *(accepted.task_id for accepted in report.accepted.values()))
        for number, accepted in report.accepted.items() if waited else ():
            report.told[number]["task"] = await self._describe(accepted, scope["state"][REQUESTER], waited=True)
        return waited


class _Form:
    """One form while it is being taken."""

    def __init__(
        self, body: FormBody, head: FormHead, live: LiveConfig, uploads: Uploads, describe: Describe, peer: str,
        requester: Requester,
    ) -> None:
        self._body = body
        self._head = head
        self._live = live
        self._uploads = uploads
        self._describe = describe
        self._peer = peer
        self._requester = requester
        self._fields = Fields()
        self._target: FormTarget | None = None
        self._paths: set[str] = set()
        self._report = FormReport()

    async def take(self) -> FormReport:
        """Take its files, one after the other. Raises ClientGone; what was whole by then stays accepted."""
        while self._report.end is None and (found := await self._next_file()) is not None:
            await self._take_file(*found)
        return self._report

    async def _next_file(self) -> tuple[PartHead, FormTarget] | None:
        """The next file, and where it goes; None when there is none, or the form cannot be read on."""
        try:
            return await self._read_on()
        except (Rejected, ClientGone) as end:
            self._uploads.tell(end, self._peer, self._requester)
            if isinstance(end, ClientGone):
                raise
            self._report.end = end
            return None

    async def _read_on(self) -> tuple[PartHead, FormTarget] | None:
        while (headers := await self._body.next_part()) is not None:
            part = read_part(headers)
            if part.filename is None:
                await self._read_field(part)
            elif part.filename or not await self._body.is_empty():
                self._report.check_room()
                self._target = self._target or replace(
                    read_target(self._fields.values, self._head.idempotency_key, self._live.config),
                    traceparent=self._head.traceparent)
                return part, self._target
            # Else it is an input of a browser in which no file was chosen.
        if not self._report.told:
            raise Rejected("no_file")
        return None

    async def _read_field(self, part: PartHead) -> None:
        self._fields.check(part, late=self._target is not None)
        value = b""
        while len(value) <= MAX_FIELD_BYTES and (piece := (await self._body.receive())["body"]):
            value += piece
        self._fields.add(part, value)

    async def _take_file(self, part: PartHead, target: FormTarget) -> None:
        filename, number = printable(part.filename or "", _NAME_LENGTH), len(self._report.told)
        try:
            request, accepted = await self._uploads.take(
                lambda _: read_file(target, part, number, self._paths), self._body.receive, self._peer,
                await self._who_now(number))
            self._paths.add(request.destination.path)
            task = await self._describe(accepted, self._requester, waited=False)
            self._report.accept(filename, accepted, task)
        except Rejected as refusal:
            self._report.refuse(filename, refusal)
            if refusal is self._body.refusal:
                self._report.end = refusal

    async def _who_now(self, number: int) -> Requester:
        """Who sends the next file: a form takes its time, and rights may end meanwhile. Raises Rejected."""
        if number == 0:
            return self._requester
        try:
            return Requester(await self._requester.again(), self._requester.again)
        except Rejected as refusal:
            self._uploads.tell(refusal, self._peer, self._requester)
            raise
