"""Whose client certificate it is."""

from daemon.access.certificates import holder_of
from daemon.config import ClientCertificate
from daemon.model.certificate import ShownCertificate

FIRST, SECOND = "1" * 64, "2" * 64
BY_SUBJECT = ClientCertificate.model_validate({"name": "web", "ca": "/ca", "subject": "CN=web", "may": ["upload"]})
BY_FINGERPRINT = ClientCertificate.model_validate({"name": "one", "fingerprint": f"sha256:{FIRST}", "may": ["read"]})
HOLDERS = [BY_SUBJECT, BY_FINGERPRINT]


def shown(fingerprint: str = SECOND, subject: str = "CN=web", *authorities: str) -> ShownCertificate:
    """A certificate."""
    return ShownCertificate(fingerprint=fingerprint, subject=subject, authorities=frozenset(authorities))


def test_certificate_is_known_by_its_fingerprint() -> None:
    """Whatever it says, and whoever signed it: before all that are known by what they say."""
    assert holder_of(shown(FIRST, "CN=x"), HOLDERS) is BY_FINGERPRINT
    assert holder_of(shown(FIRST, "CN=web", "/ca"), HOLDERS) is BY_FINGERPRINT


def test_certificate_is_known_by_its_authority_and_its_subject() -> None:
    """Both have to be right: another authority can sign the same name."""
    assert holder_of(shown(SECOND, "CN=web", "/other", "/ca"), HOLDERS) is BY_SUBJECT
    assert holder_of(shown(SECOND, "CN=web", "/other"), HOLDERS) is None
    assert holder_of(shown(SECOND, "CN=web2", "/ca"), HOLDERS) is None


def test_certificate_without_a_word_is_nobodys() -> None:
    """What is left out of an entry fits nothing."""
    assert holder_of(shown("", "", ""), HOLDERS) is None
