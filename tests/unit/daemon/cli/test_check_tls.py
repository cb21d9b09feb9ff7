"""What `check` says of the addresses where TLS is spoken."""

import pytest

from daemon.cli.check_tls import ends_soon, keeps_others_out

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
