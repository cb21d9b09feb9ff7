"""The part of the configuration that comes from the environment: which variables there are, and which is to blame."""

import json
import os
from collections.abc import Mapping
from typing import Any, Final, get_origin

#: `INCUS_COURIER__SECTION__KEY` overrides a key of the file.
PREFIX: Final = "INCUS_COURIER__"


def check(sections: Mapping[str, Any]) -> None:
    """Raise ValueError for a variable that names no key of these sections, or should be JSON and is not."""
    for variable, text in os.environ.items():
        if not variable.upper().startswith(PREFIX):
            continue
        section, _, key = variable[len(PREFIX):].lower().partition("__")
        field = sections.get(section)
        keys = getattr(field.annotation, "model_fields", None) if field else {}
        if field is None or (key and keys is not None and key not in keys):
            raise ValueError(f"the variable {variable} names no key of the configuration")
        if not key or (keys and get_origin(keys[key].annotation) is list):
            _check_json(variable, text)


def origin(where: tuple[int | str, ...]) -> str:
    """A note about the variable that a value came from; empty when it came from the file."""
    name = PREFIX + "__".join(str(part) for part in where).upper()
    ours = (variable for variable in os.environ if variable.upper().startswith(PREFIX))
    found = [variable for variable in ours if name.startswith(variable.upper())]
    return f"; from the variable {found[0]}" if found else ""


def _check_json(variable: str, text: str) -> None:
    try:
        json.loads(text)
    except ValueError as error:
        told = "" if "whsec_" in text else f" (it is {text!r})"
        raise ValueError(f"the variable {variable} must be JSON, for example '[\"127.0.0.1:8420\"]'{told}") from error
