"""What hostile clients send: what is legal, and legal things spoiled."""

import base64
import random
from collections.abc import Mapping, Sequence
from itertools import pairwise
from urllib.parse import quote

from hypothesis import strategies as st

from tests.support.forms import form

#: What means something to somebody on the way.
_SPICES = [b"\r\n", b"\n", b"\r", b"\x00", b"\xff", b"%", b"%2f", b"%00", b"..", b"//", b'"', b"\\", b"\\\"", b";", b"=", b",", b":", b"*", b"--", b"\t", b" ",
           b"-1", b"0", b"99999999999999999999", b"filename", b"utf-8''%ff", "한".encode(), b"\xed\xa0\x80", b"&", b"?", b"#", b"[", b"'"]
spice = st.sampled_from(_SPICES)
#: Text that may be anywhere.
text = st.one_of(st.sampled_from(["", "c1", "/root/", "/root/a", "root/a", "true", "0640", "1000", "local:c1", "default", "..", ".", "a/../b", "C:\\a\\b", "\\\\s\\a", "한국어 😀", "a\"b",
                                  "%22", "x" * 255, "x" * 300, "x/" * 2048]), st.text(max_size=12))
sizes = st.sampled_from([0, 1, 100, 5000, 131_072, 131_073, 150_000])
_METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "CONNECT", "put", "", "G ET"]
_PATHS = ["/healthz", "/readyz", "/upload", "/v1/tasks", "/v1/tasks/x", "/v1/tokens", "/v1/tokens/x", "/v1/uploads", "/v1/instances/c1/files/root/a", "/v1/instances//files/",
          "/", "*", "http://localhost/v1/tasks", "//", "/v1/../upload"]
_PARAMETERS = ["project", "mode", "uid", "gid", "mkdirs", "state", "instance", "client", "limit", "after", "before", "what", ""]
_DIGEST = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
_HEADERS = {
    "Host": ["localhost", "127.0.0.1", "evil.example", "", "[::1]:80", "a b"], "Content-Length": ["0", "1", "5", "-1", "+1", "1, 1", "999999999999999999", "1e3"],
    "Transfer-Encoding": ["chunked", "gzip, chunked", "identity", "chunked, chunked", "\tchunked"], "Expect": ["100-continue", "200-ok"],
    "Content-Type": ["multipart/form-data; boundary=B", "multipart/form-data", "application/json", 'multipart/form-data; boundary="B', "text/plain"],
    "Content-Encoding": ["gzip", "identity", ""], "Content-Range": ["bytes 0-1/2", "bytes */*"], "Range": ["bytes=0-1", "bytes=-1", "bytes=9-1,0-0", "lines=1"],
    "If-Match": ["*"], "If-None-Match": ["*"], "Repr-Digest": [_DIGEST, "sha-512=:x:", "md5=:x:", "sha-256=:" + "A" * 200 + ":"], "Content-Digest": [_DIGEST, "a"],
    "Content-MD5": ["x"], "Idempotency-Key": ["k", "k" * 255, "k" * 256, "a b", ""], "Prefer": ["wait=1", "wait=999999999999", "respond-async", "wait=-1"], "X-Container-Name": ["c1", "-", "moon:c1"], "X-File-Path": ["/root/a", "/root/", "a", "/한/é"],
    "X-Host-Path": ["a", "C:\\a", ".."], "X-File-Mode": ["0640", "rw", "7777777"], "X-File-Uid": ["0", "-1", "99999999999"], "X-Create-Dirs": ["true", "2"],
    "Authorization": ["Bearer x", "Bearer icr_a_b", "Basic eDp5", "Bearer"], "Origin": ["http://evil.example", "null"], "Sec-Fetch-Site": ["cross-site"], "Cookie": ["a=b"],
    "Connection": ["close", "keep-alive", "upgrade", "te"], "Upgrade": ["h2c", "websocket"], "X-Forwarded-For": ["1.2.3.4", "::", "x"], "Forwarded": ["for=1.2.3.4;host=a"],
    "Trailer": ["Content-Digest"], "TE": ["trailers"],
}


def spoiled(data: bytes, seed: int, spices: Sequence[bytes], times: int) -> bytes:
    """The bytes, here and there with something else in them, something less, or something twice."""
    chance, found = random.Random(seed), bytearray(data)
    for turn in range(times):
        start = chance.randrange(len(found) + 1)
        end = min(len(found), start + chance.choice((0, 1, 2, 8, 40)))
        match chance.randrange(4):
            case 0:
                found[start:end] = spices[turn % len(spices)]
            case 1:
                del found[start:end]
            case 2:
                found[start:start] = found[start:end]
            case _:
                found[start:start] = spices[turn % len(spices)]
    return bytes(found)


def spoils(good: st.SearchStrategy[bytes], most: int = 4) -> st.SearchStrategy[bytes]:
    """Something good, or the same spoiled."""
    return st.builds(spoiled, good, st.integers(0, 2**32), st.lists(spice, min_size=1, max_size=4), st.sampled_from([0, 0, 1, 2, most]))


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The bytes in pieces."""
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(ends)]


cuts = st.lists(st.integers(0, 2**20), max_size=4)
queries = st.lists(st.tuples(st.sampled_from(_PARAMETERS), text), max_size=4).map(
    lambda pairs: "&".join(f"{name}={quote(value.encode('utf-8', 'surrogatepass'))}" for name, value in pairs).encode())
#: The names of files as they may stand between quotes.
parts = st.tuples(st.sampled_from(["instance", "path", "project", "mode", "uid", "gid", "mkdirs", "file", "x", ""]), st.none() | text,
                  st.one_of(text.map(lambda one: one.encode("utf-8", "surrogatepass")), sizes.map(lambda size: b"x" * size), spice))
_DESTINATION = [("instance", None, b"c1"), ("path", None, b"/root/")]
_FILE = st.tuples(st.just("file"), text, st.one_of(sizes.map(lambda size: b"x" * size), spice))


def _form(parts: Sequence[tuple[str, str | None, bytes]]) -> bytes:
    legal = [(name, filename and filename.encode("utf-8", "replace").decode(), data) for name, filename, data in parts]
    return form(legal, boundary="B")


forms = spoils(st.one_of(st.lists(parts, max_size=5), st.lists(st.one_of(_FILE, parts), max_size=4).map(lambda more: [*_DESTINATION, *more])).map(_form))


def _head(method: str, path: str, query: bytes, headers: Sequence[tuple[str, str]]) -> bytes:
    lines = [f"{method} {path}".encode() + (b"?" + query if query else b"") + b" HTTP/1.1", *(f"{name}: {value}".encode() for name, value in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


_header = st.sampled_from(sorted(_HEADERS)).flatmap(lambda name: st.tuples(st.just(name), st.sampled_from(_HEADERS[name])))
#: Heads, most with one Host.
heads = spoils(st.builds(_head, st.sampled_from(_METHODS), st.sampled_from(_PATHS), queries | st.just(b""), st.lists(_header, max_size=5).map(lambda more: [("Host", "localhost"), *more])))
_bodies = st.one_of(st.binary(max_size=64), forms, spoils(st.just(b"5\r\nabcde\r\n0\r\n\r\n")))
#: One request after the other on one connection.
conversations = st.lists(st.builds(lambda head, body: head + body, heads, _bodies), min_size=1, max_size=3).map(b"".join)

_token = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=12)
_visible = st.text([chr(code) for code in [*range(0x21, 0x7f), *range(0x80, 0x100)]], min_size=1, max_size=6)
_value = st.builds(str.join, st.sampled_from([" ", "\t", "  ", " \t "]), st.lists(_visible, max_size=4))
_field = st.tuples(st.one_of(st.sampled_from(sorted(_HEADERS)), _token), _value)
_target = st.one_of(st.sampled_from(["/upload", "/v1/tasks?a=b&c", "*", "http://a:80/b%2f", "/%zz", "//"]), st.text([chr(code) for code in range(0x21, 0x7f)], max_size=20).map(lambda rest: "/" + rest))
#: What a request has once, or makes it one that is not plain.
_NOT_PLAIN = {"host", "content-length", "transfer-encoding", "expect", "upgrade", "connection"}


def _plain_request(method: str, target: str, fields: Sequence[tuple[str, str]], body: bytes | None, at: int, connection: Sequence[str]) -> bytes:
    once = {name.lower(): (name, value) for name, value in fields if name.lower() not in _NOT_PLAIN}
    lines = [f"{name}:{' ' * (at % 2 if value else 0)}{value}" for name, value in once.values()]
    lines[at % (len(lines) + 1):0] = ["Host: localhost:80", *([] if body is None else [f"Content-Length: {len(body)}"]), *connection]
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1") + (body or b"")


#: Requests that are so plain that they are recognised at once.
plain_requests = st.builds(_plain_request, st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"]), _target, st.lists(_field, max_size=6),
                           st.none() | st.binary(max_size=200), st.integers(0, 10), st.sampled_from([[], [], ["Connection: Keep-Alive"], ["Connection: Close"]]))


def post(body: bytes, *, chunked: bool, lacks: int, key: str | None) -> bytes:
    """A form with a legal head; `lacks` bytes less of it are announced than there are."""
    framed = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in cut(body, [97, 4000]) if piece) + b"0\r\n\r\n" if chunked else body
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {max(0, len(body) - lacks)}"
    named = "" if key is None else f"Idempotency-Key: {key}\r\n"
    return f"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\n{named}Content-Type: multipart/form-data; boundary=B\r\n{length}\r\n\r\n".encode() + framed


posts = st.builds(post, forms, chunked=st.booleans(), lacks=st.sampled_from([0, 0, 0, -1, 1, 7]), key=st.sampled_from([None, None, "k", "l"]))

#: Stands for the id of the upload that a conversation is about.
UPLOAD = b"UPLOAD"
_KEYS = ["instance", "path", "project", "mode", "uid", "gid", "mkdirs", "filename", "relativePath", "filetype", "x", "한", ""]
_NUMBERS = ["0", "1", "2", "5", "05", "100", "-1", "+1", "1.0", "5;a=b", "999999999999999", "999999999999999999", "9999999999999999999", "x", ""]
_CHECKSUMS = ["sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00=", "sha256 LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=", "sha1", "md5 x", "sha1 =", "sha256 " + "A" * 200]


def _encoded(pairs: Sequence[tuple[str, str | None]], comma: str) -> str:
    return comma.join(key if value is None else f"{key} {base64.b64encode(value.encode('utf-8', 'surrogatepass')).decode()}" for key, value in pairs)


_WHERE = [("instance", "c1"), ("path", "/root/a")]
_pairs = st.lists(st.tuples(st.sampled_from(_KEYS), st.none() | text), max_size=4)
#: What tus clients say of a file.
metadata = spoils(st.builds(_encoded, st.one_of(_pairs, _pairs.map(lambda more: [*_WHERE, *more])), st.sampled_from([",", ", "])).map(str.encode), most=2)
_number = st.sampled_from(_NUMBERS)
#: What stands in heads of resumable uploads; the first one of each is legal.
_SAID: Mapping[str, st.SearchStrategy[str]] = {
    "Tus-Resumable": st.sampled_from(["1.0.0", "1.0.0", "0.2.2", ""]), "Upload-Length": _number, "Upload-Defer-Length": st.sampled_from(["1", "0"]), "Upload-Offset": _number,
    "Upload-Checksum": st.sampled_from(_CHECKSUMS), "Upload-Concat": st.just("partial"), "X-HTTP-Method-Override": st.sampled_from(["PATCH", "DELETE", "patch", "PUT"]),
    "Upload-Draft-Interop-Version": st.sampled_from(["6", "5", "8", "x"]), "Upload-Complete": st.sampled_from(["?0", "?1", "?1;a", "1", "true", ""]), "X-Interim": st.just("no"),
    "Content-Type": st.sampled_from(["application/offset+octet-stream", "application/partial-upload", "text/plain"]), "Prefer": st.sampled_from(["wait=1", "wait=x"]),
    "Repr-Digest": st.just(_DIGEST), "Content-Digest": st.just("a"), "Trailer": st.just("Upload-Checksum"), "Idempotency-Key": st.just("k"),
}
_said = st.sampled_from(sorted(_SAID)).flatmap(lambda name: st.tuples(st.just(name), _SAID[name]))
_more = st.lists(_said, max_size=2)
_TUS = [("Tus-Resumable", "1.0.0")]
_PART = ("Content-Type", "application/offset+octet-stream")
_DRAFT = [("Upload-Draft-Interop-Version", "6")]
_DRAFT_PART = ("Content-Type", "application/partial-upload")
_methods = st.sampled_from(["HEAD", "GET", "PATCH", "PATCH", "PATCH", "DELETE", "POST", "OPTIONS"])


def _asked(method: str, path: str, headers: Sequence[tuple[str, str]], said: bytes | None, body: bytes) -> bytes:
    """A request about a resumable upload; `said` is its metadata."""
    head = _head(method, path, b"", [("Host", "localhost"), ("Content-Length", str(len(body))), *headers])
    return head[:-2] + (b"" if said is None else b"Upload-Metadata: " + said + b"\r\n") + b"\r\n" + body


_pieces = st.sampled_from([b"", b"a", b"hello", b"x" * 5000])
_creations = st.one_of(
    st.builds(lambda length, more, said, body: _asked("POST", "/v1/tus/", [*_TUS, ("Upload-Length", length), *([_PART] if body else []), *more], said, body), _number, _more, metadata, _pieces),
    st.builds(lambda complete, more, body: _asked("PUT", "/v1/instances/c1/files/root/a", [*_DRAFT, ("Upload-Complete", complete), *more], None, body), st.sampled_from(["?0", "?1"]), _more, _pieces))
_appends = st.one_of(
    st.builds(lambda method, offset, more, body: _asked(method, f"/v1/tus/{UPLOAD.decode()}", [*_TUS, _PART, ("Upload-Offset", offset), *more], None, body), _methods, _number, _more, _pieces),
    st.builds(lambda method, offset, complete, more, body: _asked(method, f"/v1/resumable/{UPLOAD.decode()}", [*_DRAFT, _DRAFT_PART, ("Upload-Offset", offset), ("Upload-Complete", complete), *more],
                                                                 None, body), _methods, _number, st.sampled_from(["?0", "?1"]), _more, _pieces))
#: The making of a resumable upload, and what is asked of it then, one request after the other.
creations = spoils(_creations, most=2)
appends = st.lists(spoils(_appends, most=2), min_size=1, max_size=4).map(b"".join)
#: Any head of a resumable upload.
resumable_heads = spoils(st.one_of(_creations, _appends))
