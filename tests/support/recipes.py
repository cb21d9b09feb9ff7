"""What a page of the documentation gives people to paste, as it is printed there."""

import re
import textwrap
from pathlib import Path
from typing import Final

#: A reader does not see the first line; what is to be pasted is set in.
_BLOCK: Final = re.compile(r"^<!-- recipe: (\S+) -->\n\n((?: {4}.*\n|\n)+)", re.MULTILINE)


def recipes_of(page: Path) -> dict[str, str]:
    """The blocks of a page, by their names."""
    found = _BLOCK.findall(page.read_text())
    blocks = {name: textwrap.dedent(block).strip("\n") + "\n" for name, block in found}
    assert len(blocks) == len(found), "a name is there twice"
    return blocks
