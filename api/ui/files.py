"""The files of the dashboard, as they are served: read once, and named by what is in them.

All files but the page are below a folder whose name is the digest of them all: one that a browser has may be kept for
good, and no two versions are ever mixed. The page has the names of the others, and is asked for each time. What is in
folders is of others (`scripts/vendor-ui`), and is fetched by the page that uses it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_DIRECTORY: Final = Path(__file__).parent / "static"
_PAGE: Final = "index.html"
_MEDIA_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
                       ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8"}
#: What stands in the page for the folder of the others, and for the line that has each module fetched at once.
_FOLDER: Final = "@FOLDER@"
_MODULES: Final = "    <!-- @MODULES@ -->\n"


@dataclass(frozen=True)
class StaticFile:
    """A file, and what it is."""

    body: bytes
    media_type: str


@dataclass(frozen=True)
class StaticFiles:
    """The page, and all that it needs."""

    page: StaticFile
    #: Changes with the page.
    page_tag: str
    #: The name of the folder of the others.
    folder: str
    #: The others, by their names in it.
    others: Mapping[str, StaticFile]

    @classmethod
    def read(cls, address: str, directory: Path = _DIRECTORY) -> Self:
        """Read all files of a directory; the others are served below `address`. Raises OSError."""
        paths = sorted(path for path in directory.rglob("*") if path.suffix in _MEDIA_TYPES)
        others = {str(path.relative_to(directory)): StaticFile(path.read_bytes(), _MEDIA_TYPES[path.suffix])
                  for path in paths}
        folder = _digest(*(part for name, file in others.items() for part in (name.encode(), file.body)))
        text = (directory / _PAGE).read_text("utf-8")
        modules = "".join(f'    <link rel="modulepreload" href="{address}{folder}/{name}">\n'
                          for name in others if name.endswith(".js") and "/" not in name)
        page = text.replace(_MODULES, modules).replace(_FOLDER, f"{address}{folder}").encode()
        return cls(StaticFile(page, "text/html; charset=utf-8"), f'"{_digest(page)}"', folder, others)


def _digest(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(b"%d:%b" % (len(part), part))
    return found.hexdigest()[:20]
