"""The command line as it is installed."""

import subprocess
import sys

import pytest

from tests.support.processes import ROOT

_ASK = """
import sys
from client.main import main
sys.argv = ["incus-courier", *{words}]
try:
    main()
finally:
    print("LOADED", *sys.modules)
"""


@pytest.mark.parametrize(("word", "said", "loads"), [("push", "--recursive", False), ("--config", "push", True)])
def test_commands_by_http_load_nothing_of_a_service(word: str, said: str, loads: bool) -> None:
    """They start fast, and where a service never was; among the other commands they are listed."""
    words = [word, "--help"] if word == "push" else [word, "/dev/null", "--help"]
    done = subprocess.run([sys.executable, "-P", "-c", _ASK.format(words=words)], cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, check=True)
    shown, _, loaded = done.stdout.partition("LOADED")
    assert said in shown
    assert bool({"daemon.config", "daemon.cli.main"} & set(loaded.split())) is loads
    assert not {"http.client", "rich.progress"} & set(loaded.split())
