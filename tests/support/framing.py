"""Requests that are read in more than one way."""

_CHUNKED_BODY = "\r\n1\r\nx\r\n0\r\n\r\n"
_CHUNKS = "Transfer-Encoding: chunked\r\n\r\n"

#: Bodies that somebody else may see end elsewhere, and the status that they are refused with.
DOUBTFUL = [
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" + _CHUNKED_BODY, 501),
    ("Transfer-Encoding: identity, chunked\r\n" + _CHUNKED_BODY, 501),
    ("Transfer-Encoding: chunked, identity\r\n" + _CHUNKED_BODY, 501),
    ("Transfer-Encoding: xchunked\r\n" + _CHUNKED_BODY, 501),
    ("Transfer-Encoding: \x0bchunked\r\n" + _CHUNKED_BODY, 400),
    ("Transfer-Encoding : chunked\r\n" + _CHUNKED_BODY, 400),
    ("Transfer-Encoding:\r\n chunked\r\n" + _CHUNKED_BODY, 400),
    ("Transfer-Encoding: chunked\n" + _CHUNKED_BODY, 400),
    ("Transfer-Encoding: chunked\r\nX: a\rb\r\n" + _CHUNKED_BODY, 400),
    ("X: a\n\tb\r\nTransfer-Encoding: chunked\r\n" + _CHUNKED_BODY, 400),
    (_CHUNKS + "+1\r\nx\r\n0\r\n\r\n", 400), (_CHUNKS + "0x1\r\nx\r\n0\r\n\r\n", 400),
    (_CHUNKS + "1_0\r\nx\r\n0\r\n\r\n", 400), (_CHUNKS + " 1\r\nx\r\n0\r\n\r\n", 400),
    (_CHUNKS + "1 \r\nx\r\n0\r\n\r\n", 400), (_CHUNKS + f"{1:016x}\r\nx\r\n0\r\n\r\n", 400),
    (_CHUNKS + "1\nx\r\n0\r\n\r\n", 400), (_CHUNKS + "1\r\nx\n0\r\n\r\n", 400),
    (_CHUNKS + "1;a\nx\r\nx\r\n0\r\n\r\n", 400), (_CHUNKS + "1;a\rb\r\nx\r\n0\r\n\r\n", 400),
    (_CHUNKS + "1;a\0b\r\nx\r\n0\r\n\r\n", 400), (_CHUNKS + "1\r\nx\r\n0;a\rb\r\n\r\n", 400),
    (_CHUNKS + "1\r\nx\r\n0\r\n\n", 400), (_CHUNKS + "1\r\nx\r\n0\r\nX: a\n\n", 400),
    (_CHUNKS + "1\r\nx\r\n0\r\nX: a\rb\r\n\r\n", 400), (_CHUNKS + "1\r\nx\r\n0\r\nX: a\r\n b\r\n\r\n", 400),
    ("Content-Length: +1\r\n\r\nx", 400), ("Content-Length: 0x1\r\n\r\nx", 400), ("Content-Length: 1_0\r\n\r\nx", 400),
    ("Content-Length: 1, 1\r\n\r\nx", 400), ("Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
    ("Content-Length: 1,\r\n\r\nx", 400), ("Content-Length:\r\n\r\nx", 400), ("Content-Length : 1\r\n\r\nx", 400),
    (f"Content-Length: {1:019}\r\n\r\nx", 400), ("Content-Length: 1\n\nx", 400), ("Content-Length:\r\n 1\r\n\r\nx", 400),
]
