"""What browsers are told about pages of sites that were named in the configuration."""

import pytest

from api.http.response import Answer, Receive, Scope, text_answer
from api.live_config import LiveConfig
from api.routes.endpoint import Endpoint, Route
from daemon.config import Api, Config
from daemon.errors import Rejected
from tests.support.addresses import Addresses

OURS = "courier.example.org"
PAGE = "https://shop.example.org"


async def hello(scope: Scope, receive: Receive) -> Answer:
    """Answer with one word."""
    return text_answer(200, "hello", ("Upload-Offset", "1"))


def addresses(*named: str) -> Addresses:
    """One address, for pages of these sites."""
    live = LiveConfig(Config(api=Api(hosts=["courier.example.org"], cors_origins=list(named))))
    return Addresses(live, [Route("/a", Endpoint({"PATCH": hello}))])


def test_page_of_a_named_site_may_send_and_see_the_answer() -> None:
    """Whatever the answer is; what tus says in headers is among what it sees."""
    asked = addresses(PAGE)
    told = asked.ask("PATCH", "/a", Origin=PAGE, Sec_Fetch_Site="cross-site", Host=OURS)
    assert (told.status, told.headers["access-control-allow-origin"], told.headers["vary"]) == (200, PAGE, "origin")
    assert {"Upload-Offset", "Location", "Task-Id"} <= set(told.headers["access-control-expose-headers"].split(", "))
    assert "access-control-allow-credentials" not in told.headers
    asked.refused = Rejected("bad_credential")
    refused = asked.ask("PATCH", "/a", Origin=PAGE, Host=OURS)
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, PAGE)


def test_browser_that_asks_first_is_told_what_a_page_may_send() -> None:
    """It shows no credential then; a header that proxies believe is not allowed."""
    asked = addresses("https://other.example.org", "https://shop.example.org:443")
    asked.refused = Rejected("no_credential")
    told = asked.ask("OPTIONS", "/v1/tus/", Origin=PAGE, Access_Control_Request_Method="PATCH",
                     Access_Control_Request_Headers="tus-resumable,x-forwarded-user", Host=OURS)
    assert (told.status, told.headers["access-control-allow-origin"], told.body) == (200, PAGE, b"")
    assert {"PATCH", "DELETE", "HEAD"} <= set(told.headers["access-control-allow-methods"].split(", "))
    allowed = set(told.headers["access-control-allow-headers"].lower().split(", "))
    assert {"authorization", "tus-resumable", "upload-metadata", "x-http-method-override"} <= allowed
    assert "x-forwarded-user" not in allowed


@pytest.mark.parametrize("origin", [
    "https://evil.example", "http://shop.example.org", "https://shop.example.org:8443", "null", "", "https://shop.example.org.evil.example",
    "https://shop.example.org https://evil.example", "https://x.shop.example.org", "shop.example.org",
])
def test_page_of_any_other_site_is_refused_and_told_nothing(origin: str) -> None:
    """Another scheme or port is another site."""
    for method in ("PATCH", "OPTIONS"):
        told = addresses(PAGE).ask(method, "/a", Origin=origin, Access_Control_Request_Method="PATCH", Host=OURS)
        assert (told.status, told.code, "access-control-allow-origin" in told.headers) == (403, "cross_site", False)


def test_name_of_this_service_is_looked_at_also_for_a_named_site() -> None:
    """What leads here under another name may be another service's affair."""
    assert addresses(PAGE).ask("PATCH", "/a", Origin=PAGE, Host="evil.example").code == "unknown_host"


def test_nothing_is_open_unless_a_site_is_named() -> None:
    """As the configuration comes, no page of another site may send anything."""
    assert addresses().ask("PATCH", "/a", Origin=PAGE, Host=OURS).code == "cross_site"
    assert "access-control-allow-origin" not in addresses(PAGE).ask("PATCH", "/a", Host=OURS).headers
