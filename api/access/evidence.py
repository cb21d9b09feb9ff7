"""What a request shows of who sent it."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from api.access.session import session_token
from api.http.forwarded import Forwarded
from api.http.response import CERTIFICATE, DOOR, FORWARDED, VIA, Scope
from daemon.access.peers import Credentials
from daemon.model.certificate import ShownCertificate
from daemon.process.listeners import Door

#: The address of a client of which its proxy has none.
_NOWHERE: Final = "0.0.0.0"


class Evidence(NamedTuple):
    """Who may have sent a request, as far as the request and its connection tell."""

    door: Door
    #: The values of its Authorization headers; without one, the token of the session that it belongs to stands here.
    authorization: Sequence[bytes]
    #: Of who connected to a Unix socket.
    credentials: Credentials | None
    certificate: ShownCertificate | None
    #: What a trusted proxy says, and the address that it comes from.
    forwarded: Forwarded

    @property
    def address(self) -> str | None:
        """Where the client is; None at a Unix socket, where nobody is for whom a proxy speaks."""
        forwarded = self.forwarded
        return _NOWHERE if forwarded.trusted and forwarded.address is None else forwarded.address


def evidence_of(scope: Scope) -> Evidence:
    """What this request shows."""
    state, headers = scope["state"], scope["headers"]
    authorization = [value for name, value in headers if name == b"authorization"]
    if not authorization and (token := session_token(scope["method"], headers)) is not None:
        authorization = [b"Bearer " + token]
    return Evidence(
        door=state[DOOR], authorization=authorization,
        credentials=state[VIA].credentials, certificate=state.get(CERTIFICATE),
        forwarded=state[FORWARDED])
