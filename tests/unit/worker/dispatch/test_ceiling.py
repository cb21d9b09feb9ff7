"""What the worker delivers at most, whatever is in the queue."""

import unicodedata
from typing import Any

import pytest

from daemon.config import Allowed, DeliverySection, Denied
from daemon.model.upload import Destination, Upload
from worker.dispatch.ceiling import Ceiling, ceiling_of


def ceiling(deny: dict[str, Any] | None = None, **allow: Any) -> Ceiling:
    """The ceiling of these keys."""
    return Ceiling(Allowed(**allow), Denied(**(deny or {})))


def an_upload(path: str = "/srv/x", instance: str = "web-1", **values: Any) -> Upload:
    """An upload as a row has it."""
    return Upload(task_id="0" * 36, destination=Destination("local", "default", instance, path), size=0, sha256="", **values)


def test_default_ceiling_is_in_nobodys_way() -> None:
    """Nothing is refused, and no target is given anything to ask."""
    plain, upload = ceiling(), an_upload(mode=0o7777, uid=0, gid=0, mkdirs=True)
    assert ceiling_of(DeliverySection()) is None
    assert ceiling_of(DeliverySection(deny=Denied(uids=["0"]))) == ceiling({"uids": ["0"]})
    assert plain.refusal(upload) is None
    assert plain.path_rule(upload) is None
    assert plain.set_id_rule() is None


@pytest.mark.parametrize(("allow", "upload", "rule"), [
    ({"instances": ["web-*"]}, an_upload(instance="db-1"), "delivery.allow.instances does not have db-1"),
    ({"instances": ["web-*"]}, an_upload(instance="Web-1"), "delivery.allow.instances does not have Web-1"),
    ({"projects": ["prod"]}, an_upload(), "delivery.allow.projects does not have default"),
    ({"remotes": ["eu"]}, an_upload(), "delivery.allow.remotes does not have local"),
    ({"paths": ["/srv/**"]}, an_upload("/etc/x"), "delivery.allow.paths does not have /etc/x"),
    ({"paths": ["/srv/**"]}, an_upload("/SRV/x"), "delivery.allow.paths does not have /SRV/x"),
    ({"paths": ["/srv/**"]}, an_upload("/srv"), "delivery.allow.paths does not have /srv"),
    ({"paths": ["/srv/**"]}, an_upload("/srv/../etc/x"), "/srv/../etc/x is not normalised"),
    ({"modes": "1777"}, an_upload(mode=0o4755), "mode 4755 is more than delivery.allow.modes, 1777"),
    ({"uids": ["1000-1999"]}, an_upload(uid=0), "delivery.allow.uids does not have 0"),
    ({"gids": ["5"]}, an_upload(gid=6), "delivery.allow.gids does not have 6"),
    ({"instances": []}, an_upload(), "delivery.allow.instances does not have web-1"),
    ({"uids": []}, an_upload(uid=1), "delivery.allow.uids does not have 1"),
])
def test_what_is_not_allowed_is_refused_by_its_rule(allow: dict[str, Any], upload: Upload, rule: str) -> None:
    """What is allowed is compared exactly."""
    assert ceiling(**allow).refusal(upload) == rule


@pytest.mark.parametrize(("deny", "upload"), [
    ({"instances": ["db-*"]}, an_upload(instance="DB-1")),
    ({"projects": ["Default"]}, an_upload()),
    ({"remotes": ["LOCAL"]}, an_upload()),
    ({"modes": "6000"}, an_upload(mode=0o2755)),
    ({"uids": ["0"]}, an_upload(uid=0)),
    ({"gids": ["0-99"]}, an_upload(gid=50)),
    ({"paths": ["/srv/secret/**"]}, an_upload("/srv/secret/x")),
    ({"paths": ["/srv/secret/**"]}, an_upload("/srv/Secret/x")),
    ({"paths": ["/srv/SECRET/**"]}, an_upload("/srv/secret/x")),
    ({"paths": ["/srv/caf\u00e9/*"]}, an_upload(unicodedata.normalize("NFD", "/srv/caf\u00e9/x"))),
    ({"paths": [unicodedata.normalize("NFD", "/srv/caf\u00e9/*")]}, an_upload("/srv/CAF\u00c9/x")),
    ({"paths": ["/srv/stra\u00dfe"]}, an_upload("/srv/STRASSE")),
    ({"paths": ["/srv/file"]}, an_upload("/srv/\ufb01le")),
    ({"paths": ["/srv/secret"]}, an_upload("/srv/se\u200dcret")),
    ({"paths": ["/srv/?"]}, an_upload("/srv/\uff0f")),
    ({"paths": ["/srv/*"]}, an_upload("/srv/a\uff0fb")),
    ({"paths": ["/srv/secret"]}, an_upload("/srv/secret/x", mkdirs=True)),
])
def test_what_is_denied_is_refused_however_it_is_written(deny: dict[str, Any], upload: Upload) -> None:
    """Another case, another form of a letter, or a character that some filesystems ignore hides nothing."""
    assert (ceiling(deny).refusal(upload) or "").startswith(("delivery.deny.", "mode "))


@pytest.mark.parametrize("upload", [
    an_upload("/srv/a/b"), an_upload("/srv/secret/x"), an_upload("/srv/sec"), an_upload(mode=0o755), an_upload(uid=1, gid=1)])
def test_what_is_not_meant_is_delivered(upload: Upload) -> None:
    """What only looks alike is let through; a mode and an owner that are not named are the administrator's word."""
    narrow = ceiling({"paths": ["/srv/secret", "/srv/*/*/**"], "uids": ["0"], "gids": ["0"]}, paths=["/srv/**"], modes="0777")
    assert narrow.refusal(upload) is None


def test_path_is_looked_at_again_when_it_is_known_where_it_leads() -> None:
    """With what the instance says, which may be no text."""
    rule = ceiling({"paths": ["/srv/no/**"]}, paths=["/srv/**"]).path_rule(an_upload())
    assert rule
    assert rule("/srv/yes/x") is None
    assert rule("/etc/x") == "delivery.allow.paths does not have /etc/x"
    assert rule("/srv/no/x") == "delivery.deny.paths has /srv/no/**"
    assert "delivery.allow.paths" in (rule(b"/etc/\xff".decode("utf-8", "surrogateescape")) or "")


@pytest.mark.parametrize(("allow", "found", "refused"), [
    ({"modes": "1777"}, (0o4755, 5, 5), True), ({"modes": "1777"}, (0o1755, 0, 0), False),
    ({"modes": "0640"}, (0o1777, 0, 0), False), ({"modes": "3777"}, (0o2755, 0, 0), False),
    ({"uids": ["1000"]}, (0o4755, 0, 1000), True), ({"uids": ["1000"]}, (0o4755, 1000, 0), False),
    ({"uids": ["1000"]}, (0o2755, 0, 0), False), ({"gids": ["1000"]}, (0o2755, 1000, 0), True),
    ({"uids": ["0-9", "10-4294967294"]}, (0o4755, 0, 0), False),
])
def test_set_id_bits_are_for_those_owners_alone_that_are_allowed(
        allow: dict[str, Any], found: tuple[int, int, int], refused: bool) -> None:
    """Whoever named the owner: also what a file has that is there, and what the administrator gives to new ones."""
    rule = ceiling(**allow).set_id_rule()
    assert rule
    assert (rule(*found) is not None) == refused
