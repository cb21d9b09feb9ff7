"""Which pages may speak here, by which listener."""

import pytest

from api.http.browser_origin import Sites, check, from_browser
from api.http.parameters import collect
from daemon.errors import Rejected

NAMES, ORIGINS = ["uploads.example.org"], ["https://files.example.org", "https://files.example.org:8443", "http://localhost:9000"]
#: By HTTP at a port of its own, at the one that addresses leave out, by HTTPS, and at a Unix socket.
PLAIN, PORT_80 = Sites("http", 8420, NAMES, ORIGINS), Sites("http", 80, NAMES, ORIGINS)
TLS, UNIX = Sites("https", 443, NAMES, ORIGINS), Sites("http", None, NAMES, ORIGINS)


def refusal(
    *headers: tuple[str, str], authority: str | None = None, sites: Sites = PLAIN, scheme: str | None = None,
) -> str:
    """The code with which a request with these headers is refused; empty when it is let in."""
    try:
        check(collect((name.encode(), value.encode("latin-1")) for name, value in headers), authority, sites, scheme)
    except Rejected as error:
        return error.code
    return ""


@pytest.mark.parametrize("host", [
    "127.0.0.1", "192.0.2.7", "[::1]", "[::ffff:127.0.0.1]", "[fe80::1%25eth0]", "localhost", "LocalHost", "localhost.",
    "uploads.example.org", "Uploads.Example.ORG", "uploads.example.org.",
])
def test_host_is_ours_when_it_is_an_address_or_localhost_or_configured(host: str) -> None:
    """Nobody else's page can be at such a host, whatever a name server says; the port is that of the listener."""
    assert refusal(("host", f"{host}:8420")) == refusal(("host", f"{host}:8420"), sites=UNIX) == ""
    for left_out in ("", ":", ":80", ":080"):
        assert refusal(("host", f"{host}{left_out}"), sites=PORT_80) == refusal(("host", f"{host}{left_out}"), sites=UNIX) == ""
        assert refusal(("host", f"{host}{left_out}")) == "unknown_host"
    assert (refusal(("host", host), sites=TLS), refusal(("host", f"{host}:443"), sites=TLS)) == ("", "")
    assert refusal(("host", f"{host}:80"), sites=TLS) == "unknown_host"


@pytest.mark.parametrize("host", [
    "evil.example", "evil.example:8420", "127.0.0.1.evil.example", "localhost.evil.example", "evil.localhost.example",
    "x.uploads.example.org", "uploads.example.org.evil.example", "uploads.example.or", "localhost..", "",
    "127.0.0.1@evil.example", "evil.example/127.0.0.1", "127.0.0.1 evil.example", "[::1", "::1", "[127.0.0.1]", "[evil.example]",
    "127.0.0.1:x", "127.0.0.1:80:90", "127.0.0.1:-80", "127.0.0.1:000080", "localhost, evil.example", "localhost,localhost", "127.0.0.1.", "0127.0.0.1", "\xe9vil", "lo\xffcalhost",
])
def test_host_is_a_strangers_when_a_name_server_may_have_made_it_ours(host: str) -> None:
    """DNS rebinding is the one way in which a page reaches us under its own name."""
    assert refusal(("host", host), sites=PORT_80) == refusal(("host", host), sites=UNIX) == "unknown_host"


def test_host_may_be_missing() -> None:
    """HTTP/1.0 has none, and every browser sends one."""
    assert refusal() == refusal(sites=UNIX) == ""


@pytest.mark.parametrize(("authority", "host", "code"), [
    ("127.0.0.1:8420", "evil.example", ""), ("evil.example", "127.0.0.1:8420", "unknown_host"), ("", "127.0.0.1:8420", "unknown_host"),
    ("127.0.0.1", "127.0.0.1:8420", "unknown_host"), ("user@127.0.0.1:8420", "127.0.0.1:8420", "unknown_host"),
])
def test_authority_of_the_target_counts_instead_of_the_host_header(authority: str, host: str, code: str) -> None:
    """RFC 9112, 3.2.2: an absolute target says where a request goes, whatever the header says."""
    assert refusal(("host", host), authority=authority) == code


@pytest.mark.parametrize(("host", "origin", "sites"), [
    ("127.0.0.1:8420", "http://127.0.0.1:8420", PLAIN), ("localhost:8420", "http://localhost:8420", PLAIN),
    ("[::1]:8420", "http://[::1]:8420", PLAIN), ("[0:0:0:0:0:0:0:1]:8420", "http://[::1]:8420", PLAIN),
    ("localhost", "http://localhost", PORT_80), ("localhost:80", "http://localhost", PORT_80),
    ("localhost:", "HTTP://LOCALHOST:80", PORT_80), ("localhost.:8420", "http://localhost.:8420", PLAIN),
    ("uploads.example.org", "https://uploads.example.org", TLS), ("uploads.example.org", "https://uploads.example.org:443", TLS),
    ("Uploads.Example.org:443", "https://uploads.example.org", TLS), ("uploads.example.org:8420", "http://uploads.example.org:8420", PLAIN),
    *((host, origin, sites) for sites in (PLAIN, PORT_80, TLS, UNIX) for host, origin in (
        ("files.example.org", "https://files.example.org"), ("Files.Example.org:443", "https://files.example.org"),
        ("files.example.org", "https://files.example.org:443"), ("files.example.org:8443", "https://files.example.org:8443"),
        ("localhost:9000", "http://localhost:9000"))),
])
def test_page_of_the_same_scheme_host_and_port_is_let_in(host: str, origin: str, sites: Sites) -> None:
    """Those of the listener, or those of a site that is said to lead here; what a port is that is left out, the scheme says."""
    assert refusal(("host", host), ("origin", origin), sites=sites) == ""


@pytest.mark.parametrize(("host", "origin", "sites"), [
    *(("localhost:8420", origin, PLAIN) for origin in (
        "http://evil.example", "http://127.0.0.1:8420", "http://localhost:3000", "http://localhost", "https://localhost:8420", "null", "",
        "NULL", "localhost:8420", "http://localhost:8420/", "http://localhost:8420 http://evil.example", "chrome-extension://abc",
        "http://evil.example@localhost:8420", "http://user@localhost:8420", "file://", "http://", "http://localhost.:8420",
        "moz-extension://localhost:8420", "https://files.example.org", "http://localhost:9000", "http://localhost:8420.evil.example")),
    ("127.0.0.1", "https://127.0.0.1.evil.example", PORT_80), ("localhost", "https://localhost", PORT_80),
    ("localhost", "http://localhost", TLS), ("[::1]:8420", "http://[::1]", PLAIN),
    ("uploads.example.org", "https://other.example.org", TLS), ("uploads.example.org", "http://uploads.example.org:443", TLS),
    ("files.example.org", "http://files.example.org", PLAIN), ("files.example.org", "https://files.example.org:8443", PLAIN),
    ("files.example.org:443", "http://files.example.org:443", PLAIN), ("localhost:9000", "https://localhost:9000", PLAIN),
    # There is no port that a page could be from.
    ("localhost", "http://localhost", UNIX), ("localhost:8420", "http://localhost:8420", UNIX), ("127.0.0.1", "http://127.0.0.1", UNIX),
    ("uploads.example.org", "https://uploads.example.org", UNIX), ("localhost", "https://files.example.org", UNIX),
])
def test_page_of_another_scheme_host_or_port_is_refused(host: str, origin: str, sites: Sites) -> None:
    """A browser says where the page is from that sends a request; one of a site of ours was sent to that site."""
    assert refusal(("host", host), ("origin", origin), sites=sites) == "cross_site"


@pytest.mark.parametrize(("host", "sites"), [
    ("localhost:3000", PLAIN), ("localhost", PLAIN), ("uploads.example.org", PLAIN), ("uploads.example.org:8420", TLS),
    ("files.example.org:80", PLAIN), ("files.example.org:8420", PLAIN), ("files.example.org.", PLAIN), ("localhost:99999", PLAIN),
])
def test_host_of_ours_at_another_port_is_another_site(host: str, sites: Sites) -> None:
    """What listens there may be another user's, who passes on what its pages send."""
    assert refusal(("host", host), sites=sites) == "unknown_host"


@pytest.mark.parametrize(("authority", "scheme", "origin", "code"), [
    ("files.example.org", "https", "https://files.example.org", ""), ("files.example.org", None, "https://files.example.org", ""),
    ("files.example.org", "http", "https://files.example.org", "unknown_host"),
    ("localhost:8420", "https", "http://localhost:8420", "unknown_host"), ("localhost:8420", "http", "http://localhost:8420", ""),
    ("evil.example", "https", "https://evil.example", "unknown_host"), ("", "https", "https://files.example.org", "unknown_host"),
])
def test_what_a_proxy_was_asked_for_counts_instead_of_host_and_listener(
    authority: str, scheme: str | None, origin: str, code: str,
) -> None:
    """It may put the address of this service into Host, and end TLS."""
    assert refusal(("host", "127.0.0.1:8420"), ("origin", origin), authority=authority, scheme=scheme) == code


def test_every_origin_counts_when_there_are_several() -> None:
    """One stranger among them is enough."""
    host = ("host", "localhost:8420")
    assert refusal(host, ("origin", "http://localhost:8420"), ("origin", "http://evil.example")) == "cross_site"


def test_page_is_refused_when_the_request_has_no_host() -> None:
    """An origin that cannot be compared is a stranger's."""
    assert refusal(("origin", "http://localhost:8420")) == "cross_site"


@pytest.mark.parametrize(("name", "value", "expected"), [
    ("origin", "null", True), ("cookie", "a=b", True), ("sec-fetch-mode", "cors", True), ("sec-ch-ua", "x", True), ("referer", "x", True),
    ("access-control-request-method", "PUT", True), ("upgrade-insecure-requests", "1", True),
    ("user-agent", "Mozilla/5.0 (X11)", True), ("user-agent", "Opera/9.80", True), ("user-agent", "curl/8.5.0", False),
    ("accept", "*/*", False), ("sec-websocket-version", "13", False), ("accept-language", "*", False), ("authorization", "Bearer x", False), ("x-origin", "Mozilla/", False),
])
def test_browser_is_known_by_what_programs_do_not_send(name: str, value: str, expected: bool) -> None:
    """Whoever holds a cookie is a browser, whatever else it hides."""
    assert from_browser([(b"host", b"localhost"), (name.encode(), value.encode())]) is expected


@pytest.mark.parametrize(("site", "code"), [
    ("cross-site", "cross_site"), ("Cross-Site", "cross_site"), ("none, cross-site", "cross_site"),
    ("same-site", "cross_site"), ("", "cross_site"), ("same-origin", ""), ("Same-Origin", ""), ("none", ""),
])
def test_request_across_origins_is_refused_when_the_browser_says_that_it_is_one(site: str, code: str) -> None:
    """Also a plain GET has Sec-Fetch-Site, which no page can change."""
    for sites in (PLAIN, UNIX):
        assert refusal(("host", "localhost:8420"), ("sec-fetch-site", site), sites=sites) == code


def test_refusal_names_the_stranger_in_a_way_that_is_safe_to_show() -> None:
    """The administrator sees which name to put into api.hosts; nothing in it moves a terminal."""
    with pytest.raises(Rejected, match=r"'up\S+31m.example' is not a name of this service") as caught:
        check({b"host": [b"up\x1b[31m.example"]}, None, PLAIN)
    assert caught.value.detail.isprintable()
