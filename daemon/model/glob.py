"""Globs of names and paths: what somebody may reach, written by hand. Pure, and linear in the name's length.

`*` stands for any run of characters and `?` for one, neither for a slash; `**` as a whole component of a path for any
number of directories. All else stands for itself. There is no escape: what would need one is named by `?`.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

#: The longest glob, in characters: a glob is read in full for every request.
MAX_GLOB: Final = 1024
_DIRECTORIES: Final = "**"
_ODD: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
#: What Unicode has those ignore who compare (Default_Ignorable_Code_Point), as ext4 and f2fs do where they ignore case.
_IGNORED: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]")


def folded(text: str) -> str:
    """The text as filesystems that ignore case and Unicode's forms compare it."""
    if text.isascii():
        return text.lower()
    return _IGNORED.sub("", unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()))


def check_name_glob(text: str) -> str:
    """Return `text` if it can match a name; raise ValueError if not."""
    if not text or len(text) > MAX_GLOB or "/" in text or _ODD.search(text):
        raise ValueError(f"{text!r} is no glob of a name: * and ? stand for characters, and there is no slash")
    return text


def check_path_glob(text: str) -> str:
    """Return `text` if it can match a path of a file; raise ValueError if not."""
    components = text.split("/")[1:]
    sound = text.startswith("/") and all(component not in {"", ".", ".."} for component in components)
    if not sound or len(text) > MAX_GLOB or _ODD.search(text):
        raise ValueError(f"{text!r} is no glob of a path: absolute, normalised, for example /srv/** or /srv/*/in/*.csv")
    if any(_DIRECTORIES in component and component != _DIRECTORIES for component in components):
        raise ValueError(f"{text!r} is no glob of a path: ** stands alone between two slashes")
    return text


def name_matches(glob: str, name: str) -> bool:
    """True when the whole name is meant by the glob."""
    return _component(glob).fullmatch(name) is not None


def globs_meet(one: str, other: str) -> bool:
    """True when some name is meant by both globs. As long as one times the other at most."""
    # Whether what is left of both from (i, j) on can mean the same.
    seen, left = set[tuple[int, int]](), [(0, 0)]
    while left:
        i, j = left.pop()
        if (i, j) == (len(one), len(other)):
            return True
        if (i, j) in seen:
            continue
        seen.add((i, j))
        a, b = one[i:i + 1], other[j:j + 1]
        # A star is left, or takes one more character of the other; or both take the same character.
        left += [(i + 1, j)] if a == "*" or (a and b == "*") else []
        left += [(i, j + 1)] if b == "*" or (b and a == "*") else []
        left += [(i + 1, j + 1)] if a and b and (a == b or "?" in (a, b)) else []
    return False


@lru_cache(maxsize=4096)
def _component(glob: str) -> re.Pattern[str]:
    return re.compile(_expression(glob), re.DOTALL)


def _expression(glob: str) -> str:
    """A glob without slashes as an expression that never tries one character twice for the same star."""
    first, *others = (re.escape(part).replace(r"\?", "[^/]") for part in re.split(r"\*+", glob))
    if not others:
        return first
    # The shortest run before each fixed part is enough: a longer one leaves less for what follows.
    middle = "".join(f"(?>[^/]*?{part})" for part in others[:-1])
    return f"{first}{middle}[^/]*{others[-1]}"


@dataclass(frozen=True)
class PathGlob:
    """A glob of paths, as `check_path_glob` lets it through."""

    text: str

    @cached_property
    def _runs(self) -> list[list[str]]:
        """What is wanted before the first `**`, between two of them, and after the last one."""
        runs: list[list[str]] = [[]]
        for component in self.text.split("/")[1:]:
            if component == _DIRECTORIES:
                runs.append([])
            else:
                runs[-1].append(component)
        if len(runs) > 1 and not runs[-1]:
            # Below a directory, not the directory itself.
            runs[-1].append("*")
        return runs

    @cached_property
    def _between(self) -> re.Pattern[str]:
        # The first place of each run is enough, too. Python would take ten times as long to look for it.
        runs = ("".join(f"/(?>{_expression(glob)}(?=/|\\Z))" for glob in run) for run in self._runs[1:-1])
        return re.compile("".join(f"(?>(?:/[^/]+)*?{run})" for run in runs), re.DOTALL)

    def matches(self, path: str) -> bool:
        """True when the normalised absolute path is meant by the glob."""
        names, first, last = path.split("/")[1:], self._runs[0], self._runs[-1]
        if len(self._runs) == 1:
            return len(names) == len(first) and _all_match(first, names)
        rest = len(names) - len(last)
        if rest < len(first) or not (_all_match(first, names) and _all_match(last, names[rest:])):
            return False
        between = "".join(f"/{name}" for name in names[len(first):rest])
        return len(self._runs) == 2 or self._between.match(between) is not None


def _all_match(globs: list[str], names: list[str]) -> bool:
    return all(map(name_matches, globs, names))


@lru_cache(maxsize=4096)
def _path_glob(text: str) -> PathGlob:
    return PathGlob(text)


def path_matches(glob: str, path: str) -> bool:
    """True when the normalised absolute path is meant by the glob."""
    return _path_glob(glob).matches(path)
