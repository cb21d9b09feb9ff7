"""How this program starts other processes of its own."""

import sys


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this program: the installed code, whatever the environment says.

    In isolated mode (`-I`) neither PYTHONPATH and its like, nor the user's own packages, nor the working directory can
    put other code in its place: one user never runs what another has left there.
    """
    return [sys.executable, "-I", "-m", module, *arguments]
