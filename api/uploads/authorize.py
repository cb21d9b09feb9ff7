"""What an upload may be, for who sends it: the decision about rights, put to an upload's request. Pure."""

from api.http.parameters import check_configured
from api.uploads.request import UploadRequest
from daemon.access.caller import Caller
from daemon.access.decide import UploadWish, decide
from daemon.config import Config
from daemon.config.cells import check_ours
from daemon.errors import Rejected
from daemon.model.grant import Permission


def authorized(request: UploadRequest, caller: Caller, config: Config) -> UploadRequest:
    """The request as `caller` may make it, with who sent it. Raises Rejected with the reason when he may not."""
    wish = UploadWish(
        size=request.length, mode=request.mode, uid=request.uid, gid=request.gid, mkdirs=request.mkdirs is True)
    code = decide(caller, Permission.UPLOAD, request.destination, wish=wish)
    if code is not None:
        raise Rejected(code)
    check_ours(request.destination, config)
    check_configured(request.destination, config)
    default = config.delivery.mkdirs and all(link.grant.mkdirs for link in caller.links)
    return request._replace(mkdirs=default if request.mkdirs is None else request.mkdirs, client=caller.client)
