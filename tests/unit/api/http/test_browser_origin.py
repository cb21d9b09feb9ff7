import pytest

from api.http.browser_origin import check
from api.http.parameters import collect
from daemon.errors import Rejected

HOSTS = ["uploads.example.org"]


def refusal(*headers: tuple[str, str], authority: bytes | None = None) -> str:
    """The code with which a request with these headers is refused; empty when it is let in."""
    try:
        check(collect((name.encode(), value.encode("latin-1")) for name, value in headers), authority, HOSTS)
    except Rejected as error:
        return error.code
    return ""


@pytest.mark.parametrize("host", [
    "127.0.0.1", "127.0.0.1:8420", "192.0.2.7:80", "[::1]", "[::1]:8420", "[::ffff:127.0.0.1]:1", "[fe80::1%25eth0]:8420",
    "localhost", "localhost:8420", "LocalHost", "localhost.", "localhost:",
    "uploads.example.org", "uploads.example.org:443", "Uploads.Example.ORG", "uploads.example.org.",
])
def test_host_is_ours_when_it_is_an_address_or_localhost_or_configured(host: str) -> None:
    """Nobody else's page can be at such a host, whatever a name server says."""
    assert refusal(("host", host)) == ""


@pytest.mark.parametrize("host", [
    "evil.example", "evil.example:8420", "127.0.0.1.evil.example", "localhost.evil.example", "evil.localhost.example",
    "x.uploads.example.org", "uploads.example.org.evil.example", "uploads.example.or", "localhost..", "",
    "127.0.0.1@evil.example", "evil.example/127.0.0.1", "127.0.0.1 evil.example", "[::1", "::1", "[127.0.0.1]", "[evil.example]",
    "127.0.0.1:x", "127.0.0.1:80:90", "localhost, evil.example", "127.0.0.1.", "0127.0.0.1", "\xe9vil", "lo\xffcalhost",
])
def test_host_is_a_strangers_when_a_name_server_may_have_made_it_ours(host: str) -> None:
    """DNS rebinding is the one way in which a page reaches us under its own name."""
    assert refusal(("host", host)) == "unknown_host"


def test_host_may_be_missing() -> None:
    """HTTP/1.0 has none, and every browser sends one."""
    assert refusal() == ""


@pytest.mark.parametrize(("authority", "host", "code"), [
    (b"127.0.0.1:8420", "evil.example", ""), (b"evil.example", "127.0.0.1", "unknown_host"), (b"", "127.0.0.1", "unknown_host"),
])
def test_authority_of_the_target_counts_instead_of_the_host_header(authority: bytes, host: str, code: str) -> None:
    """RFC 9112, 3.2.2: an absolute target says where a request goes, whatever the header says."""
    assert refusal(("host", host), authority=authority) == code


@pytest.mark.parametrize(("host", "origin"), [
    ("127.0.0.1:8420", "http://127.0.0.1:8420"), ("localhost", "http://localhost"), ("localhost:80", "http://localhost"),
    ("[::1]:8420", "http://[::1]:8420"), ("localhost:", "HTTP://LOCALHOST:80"),
    ("uploads.example.org", "https://uploads.example.org"), ("Uploads.Example.org:8443", "https://uploads.example.org:8443"),
    ("uploads.example.org", "https://uploads.example.org:443"), ("uploads.example.org:443", "https://uploads.example.org"),
])
def test_page_of_the_same_host_and_port_is_let_in(host: str, origin: str) -> None:
    """A port that is left out is that of the page's scheme, also behind a proxy that ends TLS and keeps Host."""
    assert refusal(("host", host), ("origin", origin)) == ""


@pytest.mark.parametrize(("host", "origin"), [
    ("127.0.0.1:8420", "http://evil.example"), ("127.0.0.1:8420", "https://127.0.0.1.evil.example"),
    ("127.0.0.1:8420", "http://localhost:8420"), ("localhost", "http://127.0.0.1"), ("127.0.0.1", "null"), ("127.0.0.1", ""),
    ("127.0.0.1", "http://evil.example@127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "http://127.0.0.1/"),
    ("127.0.0.1", "http://127.0.0.1 http://evil.example"), ("localhost", "chrome-extension://abc"),
    ("uploads.example.org", "https://other.example.org"), ("127.0.0.1", "file://"),
    ("localhost:8420", "http://localhost:3000"), ("[::1]:8420", "http://[::1]"), ("localhost:8420", "http://localhost"),
    ("uploads.example.org", "https://uploads.example.org:8443"), ("uploads.example.org:80", "https://uploads.example.org"),
    ("localhost", "moz-extension://localhost"),
])
def test_page_of_another_host_or_port_is_refused(host: str, origin: str) -> None:
    """A browser says where the page is from that sends a request."""
    assert refusal(("host", host), ("origin", origin)) == "cross_site"


def test_every_origin_counts_when_there_are_several() -> None:
    """One stranger among them is enough."""
    host = ("host", "localhost")
    assert refusal(host, ("origin", "http://localhost"), ("origin", "http://evil.example")) == "cross_site"


def test_page_is_refused_when_the_request_has_no_host() -> None:
    """An origin that cannot be compared is a stranger's."""
    assert refusal(("origin", "http://localhost")) == "cross_site"


@pytest.mark.parametrize(("site", "code"), [
    ("cross-site", "cross_site"), ("Cross-Site", "cross_site"), ("none, cross-site", "cross_site"),
    ("same-site", "cross_site"), ("", "cross_site"), ("same-origin", ""), ("Same-Origin", ""), ("none", ""),
])
def test_request_across_origins_is_refused_when_the_browser_says_that_it_is_one(site: str, code: str) -> None:
    """Also a plain GET has Sec-Fetch-Site, which no page can change."""
    assert refusal(("host", "localhost"), ("sec-fetch-site", site)) == code


def test_refusal_names_the_stranger_in_a_way_that_is_safe_to_show() -> None:
    """The administrator sees which name to put into api.hosts; nothing in it moves a terminal."""
    with pytest.raises(Rejected, match=r"'up\S+31m.example' is not a name of this service") as caught:
        check({b"host": [b"up\x1b[31m.example"]}, None, HOSTS)
    assert caught.value.detail.isprintable()
