import pytest

from api.http.request_target import split


@pytest.mark.parametrize(("target", "authority", "path"), [
    (b"/upload", None, b"/upload"), (b"/", None, b"/"), (b"*", None, b"*"), (b"//upload", None, b"//upload"),
    (b"http://127.0.0.1:8420/upload", b"127.0.0.1:8420", b"/upload"), (b"HTTPS://Host/a//b", b"Host", b"/a//b"),
    (b"http://host", b"host", b"/"), (b"http://host?a=/b", b"host", b"/?a=/b"),
    (b"http://host/?a=/b", b"host", b"/?a=/b"), (b"http:///upload", b"", b"/upload"), (b"http://a@b/x", b"a@b", b"/x"),
    (b"ftp://host/upload", None, b"ftp://host/upload"), (b"host:80", None, b"host:80"),
    (b"/v1/http://host/x", None, b"/v1/http://host/x"),
])
def test_target_is_split_into_authority_and_path(target: bytes, authority: bytes | None, path: bytes) -> None:
    """An absolute target is taken like one that begins with a slash; anything else stays as it is."""
    assert split(target) == (authority, path)
