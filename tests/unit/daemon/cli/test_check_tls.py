"""What `check` says of the addresses where TLS is spoken."""

from pathlib import Path

import pytest

from daemon.cli.check_tls import ends_soon, keeps_others_out, tls_findings
from daemon.config import Config
from tests.support.certificates import Authority

DAY_S = 86400


@pytest.mark.parametrize(("lifetime", "left", "soon"), [
    (90, 15, False), (90, 13, True), (90, -1, True), (6, 2, False), (6, 1, True)])
def test_certificate_is_to_be_renewed_some_time_before_its_end(lifetime: int, left: int, soon: bool) -> None:
    """Two weeks, or a quarter of its lifetime if that is less."""
    assert ends_soon(0, lifetime * DAY_S, (lifetime - left) * DAY_S) is soon


@pytest.mark.parametrize(("deny", "allow", "shut"), [
    ("::/0 0.0.0.0/0", "127.0.0.0/8 ::1/128", True), ("0.0.0.0/0 ::/0", "", True), ("", "", False),
    ("::/0 0.0.0.0/0", "127.0.0.0/8 ::1/128 192.0.2.0/24", False), ("::/0 0.0.0.0/0", "::/0 0.0.0.0/0", False),
    ("192.0.2.0/24", "", False),
])
def test_unit_lets_others_through_where_a_network_of_theirs_is_allowed(deny: str, allow: str, shut: bool) -> None:
    """What systemd shows of the installed unit is the first of these."""
    assert keeps_others_out(deny, allow) is shut


#: What systemd 252 says of the installed units, where the second address is opened by the socket's.
SYSTEMD = """#!/bin/sh
case $2 in
*.service) echo LoadState=loaded; echo IPAddressAllow="127.0.0.0/8 ::1/128${OTHERS}"; echo "IPAddressDeny=::/0 0.0.0.0/0" ;;
*.socket) echo "Listen=/run/incus-courier/api.sock (Stream)"; echo "Listen=0.0.0.0:443 (Stream)" ;;
esac
"""


@pytest.mark.parametrize(("listen", "others", "said"), [
    (["tls:0.0.0.0:8443", "tls:0.0.0.0:443"], "", "keeps other machines from 0.0.0.0:8443"),
    (["tls:0.0.0.0:8443"], " 192.0.2.0/24", "lets other machines reach 0.0.0.0:8443"),
    (["tls:[::]:8443"], "", "keeps other machines from [::]:8443"),
    (["tls:0.0.0.0:443"], "", ""), (["tls:127.0.0.1:8443"], "", ""), (["tls:fd://3"], "", ""), (["0.0.0.0:8443"], "", ""),
])
def test_check_says_whether_the_unit_lets_other_machines_in(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listen: list[str], others: str, said: str,
) -> None:
    """Of those addresses that are theirs to reach, and that the service opens itself."""
    (tmp_path / "systemctl").write_text(SYSTEMD)
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("OTHERS", others)
    config = Config.model_validate({"api": {"listen": listen}, "tls": authority.issue().tls})
    found = [finding for finding in tls_findings(config, installed=True) if finding[0] == "network"]
    assert [finding[2].removeprefix("incus-courier-api.service ") for finding in found] == ([said] if said else [])
    assert [finding[1] for finding in found] == ([] if not said else [bool(others)])
