"""The certificate that a client showed."""

import pytest

from daemon.model.certificate import subject_text


@pytest.mark.parametrize(("name", "text"), [
    ([[("countryName", "DE")], [("organizationName", "A")], [("commonName", "backup")]], "CN=backup,O=A,C=DE"),
    ([[("commonName", "a"), ("userId", "b")]], "CN=a+UID=b"), ([], ""),
    ([[("organizationName", 'A, B + C; "D" <E> \\')]], r'O=A\, B \+ C\; \"D\" \<E\> \\'),
    ([[("commonName", "# a ")]], "CN=\\# a\\ "), ([[("commonName", " a")]], "CN=\\ a"), ([[("commonName", " ")]], "CN=\\ "),
    ([[("commonName", "a\n\0b")]], "CN=a\\0A\\00b"), ([[("commonName", "ü")]], "CN=ü"),
    ([[("emailAddress", "a@b")]], "emailAddress=a@b"),
])
def test_subject_is_written_as_rfc_4514_has_it(name: list[list[tuple[str, str]]], text: str) -> None:
    """The last part first, and what could be taken for the next part escaped: no two names are written alike."""
    assert subject_text(name) == text
