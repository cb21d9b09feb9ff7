"""Ends the uploads under way of who may not make them any more."""

from collections.abc import Mapping

from api.access.requester import Requester
from api.live_config import LiveConfig
from api.uploads.authorize import authorized
from api.uploads.body import Body
from api.uploads.request import UploadRequest
from daemon.errors import Rejected


async def recheck(running: Mapping[Body, tuple[Requester, UploadRequest]], live: LiveConfig) -> None:
    """Look at all bodies that are being received, with who sends each and for what."""
    for body, (requester, request) in list(running.items()):
        try:
            authorized(request, await requester.again(), live.config)
        except Rejected as refusal:
            # What cannot be looked up at the moment is looked up again.
            if not refusal.is_ours:
                body.refuse(refusal)
