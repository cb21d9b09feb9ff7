"""What a form says of its files."""

import contextlib
from collections.abc import Mapping

import pytest

from api.uploads.form import Fields, FormTarget, PartHead, read_file, read_head, read_part, read_target
from daemon.config import Config, Remote
from daemon.errors import Rejected
from daemon.model.upload import Destination
from tests.support.forms import BOUNDARY, TYPE

CONFIG = Config(incus=Remote(project="work"), remotes={"far": Remote(endpoint="https://far:8443", project="p2")})


def refused(code: str) -> "pytest.RaisesExc[Rejected]":
    """Expect a refusal with this code."""
    return pytest.raises(Rejected, check=lambda error: error.code == code)


def part(disposition: str, **headers: str) -> PartHead:
    """A part with this Content-Disposition, and further headers."""
    found = {name.replace("_", "-").encode(): [value.encode()] for name, value in headers.items()}
    return read_part({b"content-disposition": [disposition.encode("utf-8", "surrogateescape")], **found})


def target(key: str | None = None, **fields: str) -> FormTarget:
    """Where a form goes with these fields."""
    return read_target({"instance": "c1", "path": "/root/", **fields}, key, CONFIG)


@pytest.mark.parametrize("content_type", [
    TYPE, f'multipart/form-data; boundary="{BOUNDARY}"', f"Multipart/Form-Data;charset=utf-8; Boundary={BOUNDARY}",
])
def test_boundary_is_read_as_it_may_be_written(content_type: str) -> None:
    """With quotes or without, in any letters, beside other parameters."""
    head = read_head({b"content-type": [content_type.encode()], b"content-length": [b"7"], b"idempotency-key": [b"k"]})
    assert (head.boundary.decode(), head.length, head.idempotency_key) == (BOUNDARY, 7, "k")


@pytest.mark.parametrize(("headers", "code"), [
    ({"content-type": ""}, "not_a_form"), ({"content-type": "application/x-www-form-urlencoded"}, "not_a_form"),
    ({"content-type": "multipart/form-data-x"}, "not_a_form"), ({"content-type": "multipart/form-data; boundary"}, "bad_form"),
    ({"content-type": "multipart/form-data; boundary=a; boundary=b"}, "bad_form"),
    ({"content-length": None}, "bad_length"), ({"content-encoding": "gzip"}, "wrapped_body"), ({"content-range": "bytes 0-1/2"}, "bad_range"),
    ({"if-match": "*"}, "bad_condition"), ({"content-md5": "x"}, "unchecked_digest"),
    ({"repr-digest": "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"}, "unchecked_digest"),
    ({"idempotency-key": "k" * 252}, "bad_idempotency_key"), ({"idempotency-key": "a b"}, "bad_idempotency_key"),
])
def test_form_is_refused_from_its_head(headers: Mapping[str, str | None], code: str) -> None:
    """What cannot be a form of files costs no byte of it."""
    given = {"content-type": TYPE, "content-length": "1", **headers}
    with refused(code):
        read_head({name.encode(): [value.encode()] for name, value in given.items() if value is not None})


@pytest.mark.parametrize(("disposition", "name"), [
    ('form-data; name="f"; filename="a.txt"', "a.txt"),
    ("form-data; name=f; filename=a.txt", "a.txt"),
    ('Form-Data ; Name="f"; FileName="a;b=c.txt"', "a;b=c.txt"),
    ('form-data; filename="한국어 😀.txt"', "한국어 😀.txt"),
    ('form-data; name="f"; filename="a%22b.txt"', 'a"b.txt'),
    (r'form-data; name="f"; filename="a\"b.txt"', 'a"b.txt'),
    (r'form-data; name="f"; filename="a\\b.txt"', r"a\b.txt"),
    (r'form-data; name="f"; filename="a\b.txt"', r"a\b.txt"),
    ('form-data; name="f"; filename="a\\"', "a\\"),
    ('form-data; name="f"; filename="100%25.txt"', "100%25.txt"),
    ('form-data; name="f"; filename="photos/2026/a.jpg"', "a.jpg"),
    (r'form-data; name="f"; filename="C:\Users\me\a.txt"', "a.txt"),
    (r'form-data; name="f"; filename="C:\\Users\\me\\a.txt"', "a.txt"),
    (r'form-data; name="f"; filename="\\server\share\a.txt"', "a.txt"),
    ("form-data; name=\"f\"; filename*=utf-8''%ED%95%9C.txt", "한.txt"),
    ("form-data; name=\"f\"; filename=\"a.txt\"; filename*=utf-8''b.txt", "a.txt"),
])
def test_name_of_a_file_is_read_of_every_client(disposition: str, name: str) -> None:
    """A browser writes %22 for a quote, curl and Go a backslash before it, an old urllib3 `filename*` alone."""
    request = read_file(target(), part(disposition), 0, ())
    assert (request.destination, request.display_name) == (Destination("local", "work", "c1", f"/root/{name}"), name)


@pytest.mark.parametrize("filename", ["", ".", "..", "a/", "a/..", "a%0Ab", "a%0D", "\udcff"])
def test_file_is_refused_whose_name_cannot_be_one(filename: str) -> None:
    """In a directory; where the path says all, the name is for people alone."""
    found = part(f'form-data; name="f"; filename="{filename}"')
    with refused("bad_name"):
        read_file(target(), found, 0, ())
    assert read_file(target(path="/root/a"), found, 0, ()).destination.path == "/root/a"


def test_part_without_a_legal_disposition_is_refused() -> None:
    """Nobody can tell what it is."""
    for disposition in ("attachment; filename=a", "form-data; filename=a; filename=b", 'form-data; name="', "form-data; a"):
        with refused("bad_form"):
            part(disposition)
    with refused("bad_form"):
        read_part({})


def test_header_of_a_part_is_read_in_a_time_that_grows_with_its_length() -> None:
    """However it is made; with a pattern that tries everything these would take minutes."""
    length = 50_000
    for filler in (" ", "a", "\\", '\\"', "; ", "=", "%22", "; a="):
        for text in (f"form-data; filename={filler * length}\"x", f'form-data; filename="{filler * length}', f'form-data; filename="{filler * length}" x'):
            with contextlib.suppress(Rejected):
                part(text)


def test_fields_say_what_the_parameters_of_a_put_say() -> None:
    """One that was left empty is not there."""
    found = read_file(target(
        "k", instance="far:web-1", path="/srv/", project="p3", mode="0640", uid="1000", gid="", mkdirs="true"),
        part("form-data; filename=a"), 7, ())
    assert found.destination == Destination("far", "p3", "web-1", "/srv/a")
    assert (found.mode, found.uid, found.gid, found.mkdirs, found.idempotency_key) == (0o640, 1000, None, True, "k/7")
    assert (found.length, found.in_form) == (None, True)


@pytest.mark.parametrize(("fields", "code"), [
    ({"instance": ""}, "bad_instance"), ({"path": ""}, "bad_path"), ({"path": "root/"}, "bad_path"), ({"path": "/a/../b/"}, "bad_path"),
    ({"project": "a/b"}, "bad_project"), ({"mode": "rw"}, "bad_mode"), ({"uid": "-1"}, "bad_owner"), ({"mkdirs": "perhaps"}, "bad_flag"),
])
def test_fields_are_refused_as_parameters_are(fields: dict[str, str], code: str) -> None:
    """With the same codes, for the whole form."""
    with refused(code):
        target(**fields)


def test_field_has_to_be_known_and_there_once_and_before_the_files() -> None:
    """One form means one thing."""
    fields = Fields()
    mode = part('form-data; name="mode"')
    fields.check(mode, late=False)
    fields.add(mode, b"0640")
    for wrong, late in ((mode, False), (part("form-data; name=uid"), True), (part("form-data; name=x"), False), (part("form-data"), False),
                        (part("form-data; name=uid", content_type="multipart/mixed; boundary=x"), False)):
        with refused("bad_field"):
            fields.check(wrong, late=late)
    for value in (b"\xff", b"x" * 4096):
        with refused("bad_field"):
            fields.add(mode, value)


def test_second_file_of_one_path_is_refused() -> None:
    """Else it would replace the first one, and nobody had asked for that."""
    with refused("same_path"):
        read_file(target(), part("form-data; filename=a"), 1, {"/root/a"})


def test_file_may_come_with_a_digest_but_not_encoded() -> None:
    """In the headers of its part, as they would be in those of a PUT."""
    digest = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
    assert len(read_file(target(), part("form-data; filename=a", repr_digest=digest, content_transfer_encoding="BINARY"), 0, ()).digests) == 1
    for headers, code in (({"content_md5": "x"}, "unchecked_digest"), ({"content_transfer_encoding": "base64"}, "wrapped_body"),
                          ({"content_encoding": "gzip"}, "wrapped_body")):
        with refused(code):
            read_file(target(), part("form-data; filename=a", **headers), 0, ())
