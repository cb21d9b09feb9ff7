"""Text from anyone, made safe to show: nothing in it can colour, move, hide or forge what a terminal shows.

What is escaped: all that Unicode does not call printable (control characters, those that turn the direction of text or
have no width, line and paragraph separators, surrogates, private use and what is not assigned), and a few letters
without a shape. Hangul, accents and emoji stay as they are; a sequence of emoji is shown as its members.
"""

import json
import re
from typing import Any, Final

#: Fillers and joiners that count as letters or marks, and show nothing.
_SHAPELESS: Final = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\uffa0]")
_DELETE: Final = "\x7f"
_ENCODE: Final = json.JSONEncoder(ensure_ascii=False).encode


def is_plain(text: str) -> bool:
    """True when all of it may be shown as it is."""
    return text.isprintable() and (text.isascii() or _SHAPELESS.search(text) is None)


def escaped(text: str) -> str:
    r"""The text in one line, with what is not plain as Python writes it: \n, \x1b, \u202e."""
    if is_plain(text):
        return text
    return "".join(c if is_plain(c) else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def json_text(value: Any) -> str:
    """A value as JSON in one line, readable, with what is not plain escaped: the value stays the same."""
    return escaped_json(_ENCODE(value))


def escaped_json(text: str) -> str:
    """JSON, as it is made in one line, with what is not plain as JSON escapes it."""
    # Of what ASCII has of that, JSON itself leaves one alone.
    if (text.isascii() and _DELETE not in text) or is_plain(text):
        return text
    return "".join(c if is_plain(c) else json.dumps(c)[1:-1] for c in text)
