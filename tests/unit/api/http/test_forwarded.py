"""What a proxy says of others, and whose word counts."""

import os
import pwd

import pytest

from api.http.forwarded import Forwarded, read_forwarded, trusted_proxies
from api.http.peers import Via
from daemon.access.peers import HIDDEN_ID, Credentials
from daemon.config import Proxy
from daemon.errors import Rejected

OWN_USER = pwd.getpwuid(os.geteuid()).pw_name
PROXIES = trusted_proxies(Proxy(trusted=["10.0.0.5", "10.1.0.0/16", "2001:db8::/64", f"user:{OWN_USER}", "user:no-such-user"]))
HOST = (b"host", b"files.example.org")
#: All that a proxy says, the client being 192.0.2.7.
SAID = ((b"x-forwarded-for", b"192.0.2.7"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"files.example.org"),
        (b"x-forwarded-user", b"alice"))
PROXY = Via("10.0.0.5")


def peer(uid: int) -> Via:
    """That user at a Unix socket."""
    return Via(None, Credentials(uid, uid))


def heard(*headers: tuple[bytes, bytes], via: Via = PROXY) -> Forwarded:
    """What is known of the client when these headers come by a trusted proxy."""
    return read_forwarded(headers, via, PROXIES)[0]


@pytest.mark.parametrize("via", [
    PROXY, Via("10.1.255.255"), Via("2001:db8::1"), peer(os.geteuid()),
])
def test_word_of_a_listed_proxy_counts(via: Via) -> None:
    """By its address, its network, or its user at a Unix socket; the rest of the service sees what the client sent alone."""
    known, kept = read_forwarded([HOST, *SAID], via, PROXIES)
    assert known == Forwarded("192.0.2.7", True, "alice", "https", "files.example.org")
    assert kept == [HOST]


@pytest.mark.parametrize("via", [
    Via("127.0.0.1", is_local=True), Via("127.0.0.1"), Via("::1"), Via("10.0.0.6"), Via("10.2.0.1"), Via("2001:db8:0:1::1"),
    # This machine's own address, from which each of its users can come.
    Via("10.0.0.5", is_local=True), Via("10.1.0.1", is_local=True),
    peer(os.geteuid() + 1), peer(HIDDEN_ID), Via(None),
])
@pytest.mark.parametrize("forged", [
    *SAID, (b"X-Forwarded-User", b"root"), (b"x_forwarded_user", b"root"), (b"X-FORWARDED_For", b"127.0.0.1"), (b"forwarded", b"for=a"),
    (b"x-forwarded-port", b"443"), (b"x-forwarded-user", b""), (b"x-forwarded-user", b"a,b"),
])
def test_word_of_anybody_else_is_removed(via: Via, forged: tuple[bytes, bytes]) -> None:
    """However it is spelled, how often it comes, and whether it would be legal."""
    known, kept = read_forwarded([forged, HOST, forged], via, PROXIES)
    assert (known, kept) == (Forwarded(via.address), [HOST])


def test_user_is_in_the_header_that_is_configured() -> None:
    """And in no other; that one is removed everywhere, and one like it is the client's own."""
    proxies = trusted_proxies(Proxy(trusted=["10.0.0.5"], user_header="Remote-User"))
    headers = [(b"remote-user", b"alice"), (b"x-forwarded-user", b"root"), (b"Remote_User", b"root"), (b"remote-user-2", b"x")]
    known, kept = read_forwarded(headers, PROXY, proxies)
    assert (known.user, kept) == ("alice", [(b"remote-user-2", b"x")])
    assert read_forwarded(headers, Via("10.0.0.6"), proxies)[1] == kept


def test_nobody_is_trusted_when_none_is_listed() -> None:
    """That is the default."""
    for via in (PROXY, peer(os.geteuid()), peer(0)):
        assert read_forwarded(SAID, via, trusted_proxies(Proxy())) == (Forwarded(via.address), [])


def test_user_whom_the_kernel_shows_for_those_that_it_hides_is_not_trusted() -> None:
    """In a user namespace it would be everybody else."""
    assert trusted_proxies(Proxy(trusted=[f"user:{HIDDEN_ID}", "user:nobody", "user:7"])).uids == {7}


@pytest.mark.parametrize(("values", "address"), [
    ([b"192.0.2.7"], "192.0.2.7"), ([b"::ffff:192.0.2.7"], "192.0.2.7"), ([b"2001:DB8:1::0007"], "2001:db8:1::7"), ([b"fe80::1%eth0"], "fe80::1"),
    # What stands before the last stranger, that one may have written itself.
    ([b"203.0.113.1, 192.0.2.7"], "192.0.2.7"), ([b"203.0.113.1", b"192.0.2.7"], "192.0.2.7"), ([b"x, 192.0.2.7"], "192.0.2.7"),
    # Other proxies on the way are passed over.
    ([b"192.0.2.7, 10.1.2.3,10.0.0.5"], "192.0.2.7"), ([b"192.0.2.7", b"10.1.2.3"], "192.0.2.7"), ([b"192.0.2.7, ::ffff:10.1.2.3"], "192.0.2.7"),
    # Loopback is no proxy, whoever names it.
    ([b"192.0.2.7, 127.0.0.1"], "127.0.0.1"),
    # What is no address, or only proxies: the proxy itself.
    ([b"10.1.2.3, 10.0.0.5"], "10.0.0.5"), ([b"192.0.2.7, unknown"], "10.0.0.5"), ([b"192.0.2.7,"], "10.0.0.5"), ([b""], "10.0.0.5"),
    ([b"192.0.2.7:1234"], "10.0.0.5"), ([b"[2001:db8::1]"], "10.0.0.5"), ([b"192.0.2.7, x, 10.1.2.3"], "10.0.0.5"), ([b"\xff"], "10.0.0.5"),
    ([], "10.0.0.5"),
])
def test_client_is_the_last_one_that_is_no_proxy(values: list[bytes], address: str) -> None:
    """A proxy adds who asked it at the end."""
    assert heard(*((b"x-forwarded-for", value) for value in values)).address == address


def test_client_of_a_proxy_at_a_unix_socket_has_an_address_when_that_names_one() -> None:
    """Else none is known."""
    via = peer(os.geteuid())
    assert heard((b"x-forwarded-for", b"192.0.2.7"), via=via).address == "192.0.2.7"
    assert heard((b"x-forwarded-for", b"@"), via=via).address is None


@pytest.mark.parametrize(("name", "values", "expected"), [
    ("proto", [b"https"], "https"), ("proto", [b"HTTP"], "http"), ("proto", [b"http, https"], "https"), ("proto", [b"http", b"https"], "https"),
    ("proto", [b"gopher"], None), ("proto", [b""], None), ("proto", [b"https,"], None), ("proto", [], None),
    ("host", [b"a.example:8443"], "a.example:8443"), ("host", [b"evil.example, a.example"], "a.example"),
    ("host", [b"evil.example", b"a.example"], "a.example"), ("host", [b""], None), ("host", [], None),
])
def test_last_scheme_and_host_count(name: str, values: list[bytes], expected: str | None) -> None:
    """Those before them came with the request to the proxy."""
    known = heard(*((f"x-forwarded-{name}".encode(), value) for value in values))
    assert {"proto": known.scheme, "host": known.host}[name] == expected


@pytest.mark.parametrize("name", ["alice", "alice@example.org", "Alice Liddell", "\u00c4nne", "a" * 255, "CN=alice/O=x"])
def test_user_is_who_the_proxy_names(name: str) -> None:
    """As it names it."""
    assert heard((b"x-forwarded-user", name.encode())).user == name


@pytest.mark.parametrize("values", [
    [b"alice", b"alice"], [b"alice", b"root"], [b""], [b" "], [b"alice,root"], [b"alice, root"], [b"a\tb"], [b"a\x1bb"], [b"a\x00"], [b"\xff"],
    ["a\u202eb".encode()], ["a\x85b".encode()], [b"a" * 256],
    ["a\u3164".encode()], ["\u115f".encode()],
])
def test_user_that_may_be_two_or_nobody_is_refused(values: list[bytes]) -> None:
    """A proxy that adds its header to the client's own would let clients say who they are."""
    with pytest.raises(Rejected) as caught:
        heard(*((b"x-forwarded-user", value) for value in values))
    assert caught.value.code == "bad_forwarded"
