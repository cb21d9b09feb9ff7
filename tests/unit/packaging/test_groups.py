"""The users and groups of the installed service: who is in which, and that none outlives it."""

import re

from tests.support.processes import ROOT

SYSUSERS = [line.split() for line in (ROOT / "systemd/sysusers.conf").read_text().splitlines() if not line.startswith("#")]


def test_every_group_is_removed_with_the_service() -> None:
    """Purging the package removes them, and `make uninstall` names them; that of Incus's socket belongs to Incus."""
    groups = {name for kind, name, *_ in SYSUSERS if kind == "g"} - {"incus-admin"}
    postrm = (ROOT / "packaging/debian/postrm").read_text()
    purged = re.search(r"for group in (.+); do", postrm)
    assert purged
    assert set(purged[1].split()) == groups
    assert set(re.findall(r"groupdel ([a-z-]+)", (ROOT / "packaging/uninstall").read_text())) == groups


def test_process_of_the_api_alone_is_in_the_group_of_the_tokens() -> None:
    """No user belongs to it, and no other unit names it: whoever becomes a user of the service does not get in."""
    group = "incus-courier-tokens"
    assert not [line for line in SYSUSERS if line[0] != "g" and group in " ".join(line)]
    named = {path.name for path in (ROOT / "systemd").iterdir()
             if path.is_file() and path.name != "sysusers.conf" and group in path.read_text()}
    assert named == {"incus-courier-api.service"}
