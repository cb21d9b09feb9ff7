"""What a request of tus says, read from its head."""

import base64
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.parameters import Headers, collect
from api.resumable.tus_headers import (
    CHECKSUMS,
    check_part,
    check_version,
    method_of,
    read_checksum,
    read_creation,
    read_late_length,
    read_metadata,
    read_offset,
)
from api.resumable.values import Checksum
from api.uploads.request import UploadRequest
from daemon.config import Config, Remote
from daemon.errors import Rejected
from daemon.model.upload import Destination

CONFIG = Config(incus=Remote(project="work"), remotes={"far": Remote(endpoint="https://far:8443", project="p2")})
WHERE = {"instance": "c1", "path": "/srv/a"}


def head(**headers: str | bytes | list[str]) -> Headers:
    """The headers of a request; underscores for hyphens, a list for one that is there several times."""
    return collect((name.replace("_", "-").encode(), one.encode() if isinstance(one, str) else one)
                   for name, given in headers.items() for one in (given if isinstance(given, list) else [given]))


def encoded(values: Mapping[str, str | bytes]) -> str:
    """Metadata as clients send it."""
    return ",".join(f"{key} {base64.b64encode(value.encode() if isinstance(value, str) else value).decode()}"
                    for key, value in values.items())


def creation(values: Mapping[str, str | bytes], **headers: str) -> UploadRequest:
    """Read a creation with this metadata."""
    return read_creation(head(**{"upload_length": "3", "upload_metadata": encoded(values), **headers}), CONFIG).request


def refused(code: str) -> "pytest.RaisesExc[Rejected]":
    """Expect a refusal with this code."""
    return pytest.raises(Rejected, check=lambda error: error.code == code)


def test_key_of_a_creation_is_that_of_its_upload() -> None:
    """As with PUT: sending the same file again with it makes no second task."""
    assert creation(WHERE).idempotency_key is None
    assert creation(WHERE, idempotency_key="k-1").idempotency_key == "k-1"
    with refused("bad_idempotency_key"):
        creation(WHERE, idempotency_key="k" * 256)


def test_metadata_says_all_that_the_parameters_of_put_say() -> None:
    """The keys have the same names and the same meaning; the length is that of the whole file."""
    request = creation({"instance": "far:web-1", "path": "/srv/가.txt", "project": "p3", "mode": "0640", "uid": "7", "gid": "8", "mkdirs": "true"})
    assert request.destination == Destination("far", "p3", "web-1", "/srv/가.txt")
    assert (request.mode, request.uid, request.gid, request.mkdirs, request.length) == (0o640, 7, 8, True, 3)
    bare = creation(WHERE)
    assert (bare.destination.project, bare.mode, bare.uid, bare.mkdirs, bare.display_name) == ("work", None, None, None, "a")


@pytest.mark.parametrize(("values", "path", "display_name"), [
    ({"path": "/srv/a", "filename": "photo.jpg"}, "/srv/a", "photo.jpg"),
    ({"path": "/srv/", "filename": "photo.jpg"}, "/srv/photo.jpg", "photo.jpg"),
    ({"path": "/srv/", "filename": r"C:\photos\a.jpg"}, "/srv/a.jpg", "a.jpg"),
    ({"path": "/srv/", "filename": "a/b.jpg"}, "/srv/b.jpg", "b.jpg"),
    ({"path": "/srv/", "filename": "b.jpg", "relativePath": "trip/day 1/b.jpg"}, "/srv/trip/day 1/b.jpg", "b.jpg"),
    ({"path": "/", "filename": "b.jpg", "relativePath": "/trip/b.jpg"}, "/trip/b.jpg", "b.jpg"),
    ({"path": "/srv/", "filename": "b.jpg", "relativePath": "null"}, "/srv/b.jpg", "b.jpg"),
    ({"path": "/srv/", "filename": "b.jpg", "relativePath": ""}, "/srv/b.jpg", "b.jpg"),
    ({"path": "/srv/", "relativePath": "x/y"}, "/srv/x/y", "y"),
    ({"path": "/srv/a", "relativePath": "x/y"}, "/srv/a", "a"),
])
def test_directory_is_completed_by_the_names_that_clients_send(values: dict[str, str | bytes], path: str, display_name: str) -> None:
    """A path that ends in a slash takes the path within the folder that was chosen, or the file's name alone."""
    request = creation({"instance": "c1", **values})
    assert (request.destination.path, request.display_name) == (path, display_name)


@pytest.mark.parametrize(("values", "code"), [
    ({"path": "/srv/a"}, "bad_instance"), ({"instance": "c1"}, "bad_path"), ({"instance": "c1", "path": "srv/a"}, "bad_path"),
    ({"instance": "c1", "path": "/srv/"}, "bad_name"), ({"instance": "c1", "path": "/srv/", "filename": ".."}, "bad_name"),
    ({"instance": "c1", "path": "/srv/", "relativePath": "../../etc/passwd"}, "bad_path"),
    ({"instance": "c1", "path": "/srv/", "relativePath": "x//y"}, "bad_path"), ({"instance": "c1", "path": "/srv/", "relativePath": "x/"}, "bad_path"),
    ({"instance": "c1", "path": "/srv/", "relativePath": "//etc/x"}, "bad_path"),
    ({**WHERE, "mode": "worse"}, "bad_mode"), ({**WHERE, "uid": "-1"}, "bad_owner"), ({**WHERE, "gid": ""}, "bad_owner"),
    ({**WHERE, "mkdirs": "maybe"}, "bad_flag"), ({**WHERE, "project": "a/b"}, "bad_project"),
    ({**WHERE, "instance": b"\xff"}, "bad_instance"), ({**WHERE, "path": b"/\xff"}, "bad_path"), ({**WHERE, "path": "/a\0b"}, "bad_path"),
    ({**WHERE, "filename": b"\xff"}, "bad_name"),
])
def test_metadata_that_leads_nowhere_is_refused(values: dict[str, str | bytes], code: str) -> None:
    """What PUT refuses is refused here by the same codes."""
    with refused(code):
        creation(values)


@pytest.mark.parametrize("text", [
    ",", "a ,", "a YQ==,,b YQ==", "a YQ==,a YQ==", "a YQ", "a Y", "a Y!==", "a YQ== YQ==", "\ta YQ==",
    "a \tYQ==", "é YQ==", "a é", "a,b c d", "a YQ==\tb", "a YQ==;b YQ==", "a YQ==,b YQ==,a",
])
def test_metadata_in_another_form_is_refused(text: str) -> None:
    """One text means one thing to everybody, and it can be sent back in a header."""
    with refused("bad_metadata"):
        read_metadata(text)


def test_unknown_keys_and_keys_without_a_value_are_kept_and_mean_nothing() -> None:
    """Uppy sends all that it knows of a file, and the same text comes back."""
    text = f"{encoded(WHERE)},type aW1hZ2UvcG5n, caption,binary /w=="
    told = read_creation(head(upload_length="3", upload_metadata=text), CONFIG)
    assert (told.metadata, told.request.destination.path) == (text, "/srv/a")
    assert read_metadata("") == read_metadata(" ") == {}


@given(st.text(alphabet=st.characters(codec="latin-1")))
def test_metadata_is_read_or_refused(text: str) -> None:
    """Nothing that a header can hold is more than an error of its sender; what is read can be sent back."""
    try:
        values = read_metadata(text)
    except Rejected:
        return
    assert text.isascii()
    assert all(key and " " not in key and "," not in key for key in values)


@given(st.dictionaries(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=","), min_size=1), st.binary()))
def test_metadata_says_what_was_put_into_it(values: dict[str, bytes]) -> None:
    """Any bytes can be a value, any visible ASCII a key."""
    assert read_metadata(encoded(values)) == values


@given(st.dictionaries(st.sampled_from(["instance", "path", "filename", "relativePath", "project", "mode", "uid", "gid", "mkdirs"]),
                       st.text() | st.binary()))
def test_creation_is_legal_or_refused(values: dict[str, str | bytes]) -> None:
    """Whatever the known keys hold, the destination that comes out is a legal one."""
    text = encoded({key: value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass") for key, value in values.items()})
    try:
        told = read_creation(head(upload_length="1", upload_metadata=text), CONFIG)
    except Rejected:
        return
    assert told.request.destination.checked()


@pytest.mark.parametrize(("headers", "length"), [
    ({"upload_length": "0"}, 0), ({"upload_length": "00012"}, 12), ({"upload_length": "9" * 18}, 10**18 - 1), ({"upload_defer_length": "1"}, None),
])
def test_length_is_said_or_put_off(headers: dict[str, str], length: int | None) -> None:
    """A creation says one of both."""
    assert read_creation(head(upload_metadata=encoded(WHERE), **headers), CONFIG).request.length == length


@pytest.mark.parametrize("headers", [
    {}, {"upload_length": "1", "upload_defer_length": "1"}, {"upload_defer_length": "0"}, {"upload_length": "-1"}, {"upload_length": ""},
    {"upload_length": "+1"}, {"upload_length": "1e3"}, {"upload_length": "٣"}, {"upload_length": "9" * 19}, {"upload_length": ["1", "1"]},
    {"upload_length": "1", "upload_concat": "partial"}, {"upload_length": "1 "}, {"upload_length": b"\xff"},
])
def test_length_in_another_form_is_refused(headers: dict[str, str | bytes | list[str]]) -> None:
    """Nor is an upload put together from others."""
    with refused("bad_upload_header"):
        read_creation(head(upload_metadata=encoded(WHERE), **headers), CONFIG)


def test_offset_has_to_be_said() -> None:
    """A later length need not."""
    assert (read_offset(head(upload_offset="7")), read_late_length(head()), read_late_length(head(upload_length="9"))) == (7, None, 9)
    for headers in (head(), head(upload_offset="x"), head(upload_offset=["1", "2"])):
        with refused("bad_upload_header"):
            read_offset(headers)


def test_checksum_is_sha1_or_sha256() -> None:
    """Another algorithm, another length, and what is not base64 are refused."""
    for algorithm, size in CHECKSUMS.items():
        digest = bytes(range(size))
        assert read_checksum(head(upload_checksum=f"{algorithm} {base64.b64encode(digest).decode()}")) == Checksum(algorithm, digest)
    assert read_checksum(head()) is None
    for text in ("md5 1B2M2Y8AsgTpgAmY7PhCfg==", "sha1", "sha1 YQ==", "sha1 !", "", "SHA1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", "sha1  Kq5sNclPz7QV2+lfQIuc6R7oRu0="):
        with refused("bad_checksum"):
            read_checksum(head(upload_checksum=text))


def test_version_is_the_one_that_is_spoken() -> None:
    """Whoever speaks another is told which it is."""
    check_version(head(tus_resumable="1.0.0"))
    for headers in (head(), head(tus_resumable="0.2.2"), head(tus_resumable=["1.0.0", "1.0.0"])):
        with pytest.raises(Rejected) as told:
            check_version(headers)
        assert (told.value.code, told.value.headers) == ("tus_version", (("Tus-Version", "1.0.0"),))


def test_post_stands_for_another_method_and_no_other_method_does() -> None:
    """So a proxy that lets POST through alone passes parts on, and nothing else changes its meaning."""
    assert method_of("POST", head(x_http_method_override="PATCH")) == method_of("POST", head(x_http_method_override="patch")) == "PATCH"
    assert method_of("POST", head(x_http_method_override="DELETE")) == "DELETE"
    assert [method_of(method, head(x_http_method_override="DELETE")) for method in ("GET", "HEAD", "PUT", "PATCH")] == ["GET", "HEAD", "PUT", "PATCH"]
    for other in ("", "PUT", "GET", "POST", ["PATCH", "DELETE"]):
        with refused("bad_override"):
            method_of("POST", head(x_http_method_override=other))


def test_part_has_its_media_type() -> None:
    """Anything else is not a part."""
    check_part(head(content_type="application/offset+octet-stream"))
    for headers in (head(), head(content_type="application/octet-stream"), head(content_type="application/partial-upload")):
        with refused("part_type"):
            check_part(headers)
