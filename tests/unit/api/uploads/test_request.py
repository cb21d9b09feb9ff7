"""What a request says, read from its head."""

import pytest

from api.http.parameters import collect, read_flag, read_instance, read_mode, read_owner, read_query, unescape
from api.uploads.authorize import authorized
from api.uploads.request import UploadRequest, read_length, read_put, read_upload
from daemon.access.caller import Caller, Link, anonymous
from daemon.config import Config, DeliverySection, Remote
from daemon.errors import Rejected
from daemon.model.grant import Grant, Permission
from daemon.model.upload import Destination

CONFIG = Config(incus=Remote(project="work"), remotes={"far": Remote(endpoint="https://far:8443", project="p2")})


def upload(**headers: str | bytes) -> UploadRequest:
    """Read a POST /upload with a legal head, changed by `headers` (underscores for hyphens; empty: left out)."""
    values: dict[str, str | bytes] = {
        "x_file_path": "/root/a", "x_container_name": "c1", "content_length": "1", **headers}
    return read_upload(collect(
        (name.replace("_", "-").encode(), value.encode() if isinstance(value, str) else value)
        for name, value in values.items() if value != ""), CONFIG)


def put(path: str, query: str = "", instance: str = "c1", **headers: str) -> UploadRequest:
    """Read a PUT to an address as it was sent."""
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in {"content_length": "1", **headers}.items()]
    return read_put(instance, path, query.encode(), collect(pairs), CONFIG)


def refused(code: str) -> "pytest.RaisesExc[Rejected]":
    """Expect a refusal with this code."""
    return pytest.raises(Rejected, check=lambda error: error.code == code)


@pytest.mark.parametrize(("instance", "remote", "project", "name"), [
    ("c1", "local", "work", "c1"),
    ("far:web-1", "far", "p2", "web-1"),
    ("local:c1", "local", "work", "c1"),
])
def test_both_doors_read_the_same_destination(instance: str, remote: str, project: str, name: str) -> None:
    """`remote:instance` chooses the remote, whose configuration names the project."""
    wanted = Destination(remote, project, name, "/root/a")
    assert upload(x_container_name=instance).destination == wanted
    assert put("root/a", instance=instance).destination == wanted
    assert put("root/a", instance=instance.replace(":", "%3A")).destination == wanted


def test_trace_is_read_where_it_is_one() -> None:
    """Of this version, in small letters, and neither trace nor span nothing."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert upload(traceparent=trace).traceparent == put("a", traceparent=trace).traceparent == trace
    for wrong in (trace.upper(), trace[:-1], f"{trace}-00", f"ff{trace[2:]}", f"01{trace[2:]}", f" {trace}", "ä", "00--",
                  f"00-{'0' * 32}{trace[35:]}", f"{trace[:36]}{'0' * 16}-01"):
        assert upload(traceparent=wrong).traceparent is None


@pytest.mark.parametrize(("instance", "code"), [
    ("", "bad_instance"), ("-a", "bad_instance"), ("a-", "bad_instance"), ("123", "bad_instance"),
    ("a_b", "bad_instance"), ("a" * 64, "bad_instance"), ("a/b", "bad_instance"), ("a b", "bad_instance"),
    ("가", "bad_instance"), (":c1", "unknown_remote"), ("far:", "bad_instance"),
])
def test_instance_is_refused_when_incus_would_refuse_it(instance: str, code: str) -> None:
    """A name that no instance can have is a 400 at both doors."""
    with refused(code):
        upload(x_container_name=instance)
    with refused(code):
        read_instance(instance)


def test_remote_that_is_not_configured_is_refused_to_who_may_use_it() -> None:
    """Whoever is kept to other remotes is not told whether there is one of that name."""
    kept = Caller(name="a", links=(Link("a", Grant(may=frozenset({Permission.UPLOAD}), remotes=("local",))),))
    for caller, code in ((anonymous(None), "unknown_remote"), (kept, "remote_not_allowed")):
        with refused(code):
            authorized(put("root/a", instance="nowhere:c1"), caller, CONFIG)
    with refused("remote_not_allowed"):
        authorized(put("root/a", instance="far:c1"), kept, CONFIG)


def test_upload_is_refused_when_a_header_is_missing() -> None:
    """Both the path and the instance are needed."""
    with refused("bad_path"):
        upload(x_file_path="")
    with refused("bad_instance"):
        upload(x_container_name="")


@pytest.mark.parametrize("path", [
    "relative", "/", "/a//b", "/a/../b", "/..", "/a/./b", "/a\tb", "/a\x7fb", "/" + "a" * 256, "/" + "a/" * 2048 + "a",
])
def test_path_is_refused_when_it_is_not_a_normal_one(path: str) -> None:
    """One file has one name, and nothing in it surprises a terminal."""
    with refused("bad_path" if not path.endswith("/") else "bad_name"):
        upload(x_file_path=path)


@pytest.mark.parametrize("path", ["/a", "/a b/c", "/한국어/파일 이름", "/😀", "/a%2Fb", "/a+b", "/" + "a" * 255, "/...", "/a\\b"])
def test_path_is_taken_as_it_is_when_it_comes_in_a_header(path: str) -> None:
    """A header's value is raw UTF-8; a percent sign in it is a percent sign."""
    assert upload(x_file_path=path).destination.path == path


@pytest.mark.parametrize(("sent", "path"), [
    ("a", "/a"), ("a%20b", "/a b"), ("%ED%95%9C", "/한"), ("%F0%9F%98%80", "/😀"), ("a+b", "/a+b"), ("a%2Bb", "/a+b"),
    ("a%25b", "/a%b"), ("a:b", "/a:b"), ("a%3Fb", "/a?b"),
])
def test_put_path_is_percent_decoded_once(sent: str, path: str) -> None:
    """The address's escapes are undone once, and a plus sign is a plus sign."""
    request = put(sent)
    assert request.destination.path == path
    assert request.display_name == path.rsplit("/", 1)[-1]


@pytest.mark.parametrize("sent", [
    "a%2Fb", "a%2fb", "a%00b", "%2e%2e/b", "a/../b", "a/%2e/b", "a%zzb", "a%", "a%4", "%FF", "%ED%95", "a%0Ab", "/a", "a//b",
    "", "a/", "%C0%AF", "%ED%A0%80", "a" * 256,
])
def test_put_path_is_refused_when_it_hides_something(sent: str) -> None:
    """Encoded slashes, dots, NULs, broken escapes and broken UTF-8 are all refused."""
    with refused("bad_path"):
        put(sent)


def test_header_is_refused_when_it_is_not_utf_8() -> None:
    """Bytes that are no UTF-8 name nothing."""
    with refused("bad_path"):
        upload(x_file_path=b"/a\xff")
    with refused("bad_name"):
        upload(x_host_path=b"\xff")


def test_header_is_refused_when_it_is_given_twice() -> None:
    """Of two paths neither is meant."""
    headers = collect([(b"x-file-path", b"/a"), (b"x-file-path", b"/b"), (b"x-container-name", b"c1")])
    with refused("bad_path"):
        read_upload(headers, CONFIG)


@pytest.mark.parametrize(("path", "host_path", "destination", "display"), [
    ("/root/", "/home/me/a.txt", "/root/a.txt", "a.txt"),
    ("/root/", "a b", "/root/a b", "a b"),
    ("/", "a", "/a", "a"),
    ("/root/b", "/home/me/a.txt", "/root/b", "a.txt"),
    ("/root/b", "/home/me/", "/root/b", "b"),
    ("/root/b", "a\tb", "/root/b", "a\ufffdb"),
    ("/root/b", "", "/root/b", "b"),
    ("/root/", r"C:\Users\me\x.txt", "/root/x.txt", "x.txt"),
    ("/root/", r"c:/Users/me\x.txt", "/root/x.txt", "x.txt"),
    ("/root/", r"\\server\share\x.txt", "/root/x.txt", "x.txt"),
    ("/root/", r"\\?\C:\x.txt", "/root/x.txt", "x.txt"),
    ("/root/", r"a\b", r"/root/a\b", r"a\b"),
    ("/root/", r"/home/C:\x", r"/root/C:\x", r"C:\x"),
    ("/root/", r"folder/a\b", r"/root/a\b", r"a\b"),
])
def test_display_name_comes_from_the_host_path(path: str, host_path: str, destination: str, display: str) -> None:
    """The host path's last part is shown, and completes a destination that is a directory."""
    request = upload(x_file_path=path, x_host_path=host_path)
    assert (request.destination.path, request.display_name) == (destination, display)


@pytest.mark.parametrize("host_path", ["", "/", "a/", "..", "a/..", "C:\\", "C:\\a\\..", "\\\\server\\share\\"])
def test_directory_is_refused_when_no_name_came_with_it(host_path: str) -> None:
    """A directory alone names no file."""
    with refused("bad_name"):
        upload(x_file_path="/root/", x_host_path=host_path)


def test_mode_owner_and_directories_are_read_at_both_doors() -> None:
    """The optional values mean the same in headers and in the query."""
    posted = upload(x_file_mode="0640", x_file_uid="1000", x_file_gid="4294967294", x_create_dirs="true")
    sent = put("root/a", "mode=640&uid=1000&gid=4294967294&mkdirs=1")
    for request in (posted, sent):
        assert (request.mode, request.uid, request.gid, request.mkdirs) == (0o640, 1000, 4294967294, True)


def test_mkdirs_comes_from_the_configuration_when_it_is_not_said() -> None:
    """`delivery.mkdirs` is the default, for whom no grant says otherwise."""
    config = Config(delivery=DeliverySection(mkdirs=True))
    headers = {b"content-length": [b"1"]}
    kept = Caller(name="a", links=(Link("a", Grant(may=frozenset({Permission.UPLOAD}), mkdirs=False)),))

    def made(query: bytes, caller: Caller) -> bool | None:
        return authorized(read_put("c1", "a", query, headers, config), caller, config).mkdirs

    assert (made(b"", anonymous(None)), made(b"mkdirs=false", anonymous(None)), made(b"", kept)) == (True, False, False)
    with refused("mkdirs_not_allowed"):
        made(b"mkdirs=true", kept)


@pytest.mark.parametrize("text", ["", "8", "64", "888", "0o644", "10644", "-644", "rw", "٦٤٤", "00644"])
def test_mode_is_refused_when_it_is_not_octal(text: str) -> None:
    """Three or four octal digits."""
    with refused("bad_mode"):
        read_mode(text)


@pytest.mark.parametrize("text", ["", "-1", "4294967295", "1.0", "root", "0x10", "٣", "99999999999"])
def test_owner_is_refused_when_it_is_no_id(text: str) -> None:
    """A number below 2**32 - 1."""
    with refused("bad_owner"):
        read_owner(text)


def test_flag_is_refused_when_it_is_neither_yes_nor_no() -> None:
    """Only true, false, 1 and 0 are understood."""
    assert read_flag("TRUE")
    with refused("bad_flag"):
        read_flag("yes")


@pytest.mark.parametrize("query", ["mod=0640", "mode", "mode=0640&mode=0600", "a=1", "mode=%FF", "=1", "&"])
def test_query_is_refused_when_a_parameter_is_unknown_or_doubtful(query: str) -> None:
    """A misspelt parameter is an error, not a default."""
    with refused("bad_query"):
        put("a", query)


def test_query_is_empty_when_there_is_none() -> None:
    """No query, no parameters."""
    assert read_query(b"", frozenset()) == {}


def test_project_is_taken_from_the_query_and_checked() -> None:
    """`project=` overrides the remote's own."""
    assert put("a", "project=other").destination.project == "other"
    for query in ("project=", "project=a%2Fb", "project=.."):
        with refused("bad_project"):
            put("a", query)


@pytest.mark.parametrize(("headers", "length"), [
    ([(b"content-length", b"0")], 0), ([(b"content-length", b"12")], 12), ([(b"transfer-encoding", b"chunked")], None),
])
def test_length_is_what_the_head_announces(headers: list[tuple[bytes, bytes]], length: int | None) -> None:
    """A number, or chunks."""
    assert read_length(collect(headers)) == length


def test_length_is_refused_when_it_is_missing() -> None:
    """An empty body by mistake would empty the file."""
    with refused("bad_length"):
        read_length(collect([]))


def test_part_of_a_file_is_refused() -> None:
    """Content-Range on an upload would put a part where the whole belongs."""
    with refused("bad_range"):
        put("a", content_range="bytes 5-9/10")


@pytest.mark.parametrize("key", ["", "a b", "ü", "a" * 256, "a\tb"])
def test_idempotency_key_is_refused_when_it_is_not_visible_ascii(key: str) -> None:
    """1 to 255 visible ASCII characters."""
    with refused("bad_idempotency_key"):
        put("a", idempotency_key=key)


def test_escape_is_undone_only_where_it_is_one() -> None:
    """What is not escaped stays as it is."""
    assert unescape("a%20b%41~", "bad_path") == "a bA~"


@pytest.mark.parametrize(("headers", "code"), [
    ({"content_encoding": "gzip"}, "wrapped_body"), ({"content_encoding": "identity, br"}, "wrapped_body"),
    ({"content_type": "multipart/form-data; boundary=x"}, "wrapped_body"), ({"content_type": "Multipart/Form-Data"}, "wrapped_body"),
    ({"if_none_match": "*"}, "bad_condition"), ({"if_match": '"x"'}, "bad_condition"),
    ({"if_unmodified_since": "Sun, 22 Nov 2026 00:00:00 GMT"}, "bad_condition"),
])
def test_upload_is_refused_when_its_body_is_not_the_whole_file_as_it_shall_be(headers: dict[str, str], code: str) -> None:
    """What would be delivered is not what the client means, so nothing is taken."""
    with refused(code):
        upload(**headers)
    with refused(code):
        put("root/a", **headers)


@pytest.mark.parametrize("headers", [
    {"content_encoding": "identity"}, {"content_encoding": "Identity"}, {"content_type": "application/x-www-form-urlencoded"},
    {"content_type": "multipart/mixed"}, {"if_modified_since": "Sun, 22 Nov 2026 00:00:00 GMT"},
])
def test_upload_is_taken_with_headers_that_change_nothing(headers: dict[str, str]) -> None:
    """What curl sends by itself, and what other methods' conditions are."""
    assert upload(**headers).length == 1


@pytest.mark.parametrize("path", ["root/a#b", "#", "root/a%20#"])
def test_bare_number_sign_in_an_address_is_refused(path: str) -> None:
    """It begins a part that is not sent; who checked the address before us may have cut it off."""
    with refused("bad_path"):
        put(path)
    assert put("root/a%23b").destination.path == "/root/a#b"
