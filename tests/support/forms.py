"""Forms as clients send them."""

from collections.abc import Sequence

BOUNDARY = "----formdata-7MA4YWxkTrZu0gW"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
#: A part: its field's name, the file's name or None, and its bytes.
Part = tuple[str, str | None, bytes]
#: Where most tests send files.
TO_ROOT: Sequence[Part] = (("instance", None, b"c1"), ("path", None, b"/root/"))


def form(parts: Sequence[Part], headers: str = "", boundary: str = BOUNDARY) -> bytes:
    """A form as a browser would write it; `headers` are further ones of each file."""
    return b"".join(_part(*part, headers, boundary) for part in parts) + f"--{boundary}--\r\n".encode()


def _part(name: str, filename: str | None, data: bytes, headers: str, boundary: str) -> bytes:
    about = f'form-data; name="{name}"'
    if filename is not None:
        about += f'; filename="{filename}"\r\nContent-Type: application/octet-stream{headers}'
    return f"--{boundary}\r\nContent-Disposition: {about}\r\n\r\n".encode("utf-8", "surrogateescape") + data + b"\r\n"
