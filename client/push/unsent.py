"""Why a file was not sent."""

from http import HTTPStatus
from typing import Final, Self

from client.http import Response
from client.retry import passes
from daemon.errors import ERRORS

_TITLES: Final = {status.value: status.phrase for status in HTTPStatus}
#: Refusals that every other file to the same instance would meet as well.
_OF_ALL: Final = frozenset({
    "no_credential", "bad_credential", "action_not_allowed", "address_not_allowed", "remote_not_allowed",
    "project_not_allowed", "instance_not_allowed", "unknown_remote", "bad_instance", "bad_project", "used_up",
    "no_server", "bad_answer", "other_cell", "no_cell"})


class Unsent(Exception):
    """Raised when a file is not sent, or its outcome cannot be learned: that is told of it, and the others go on."""

    def __init__(self, code: str, detail: str = "", hint: str | None = None, *, resumable: bool = False) -> None:
        """`code` is of the table of errors, or what a service says that has a newer one."""
        kind = ERRORS.get(code)
        self.code: Final = code
        self.detail: Final = detail or (kind.title if kind else code)
        self.hint: Final = hint or (kind.hint if kind else "")
        #: True when the same command may go on with the file.
        self.resumable: Final = resumable
        super().__init__(self.detail)

    @classmethod
    def refused(cls, response: Response) -> Self:
        """What an answer says that is none of those hoped for."""
        code = response.problem("code")
        # With another credential it may go on, too.
        resumable = passes(response) or response.status in {401, 403}
        if not code:
            said = f"It answered {response.status} {_TITLES.get(response.status, '')}".rstrip()
            return cls("bad_answer", f"{said}.", resumable=resumable)
        detail = response.problem("detail") or response.problem("title")
        return cls(code, detail, response.problem("hint"), resumable=resumable)

    @property
    def concerns_all(self) -> bool:
        """True when every other file would meet the same."""
        return self.code in _OF_ALL
