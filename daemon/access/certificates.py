"""Whose client certificate it is."""

from collections.abc import Iterable

from daemon.config import ClientCertificate
from daemon.model.certificate import ShownCertificate


def holder_of(shown: ShownCertificate, holders: Iterable[ClientCertificate]) -> ClientCertificate | None:
    """The one of `holders` who shows that certificate, or None: by its fingerprint first, else by `ca` and subject.

    Pure. Whoever has not been listed has no rights by a certificate, whoever signed it.
    """
    listed = list(holders)
    by_fingerprint = (holder for holder in listed if holder.fingerprint and holder.fingerprint == shown.fingerprint)
    by_subject = (holder for holder in listed
                  if holder.ca and holder.ca in shown.authorities and holder.subject == shown.subject)
    return next(by_fingerprint, None) or next(by_subject, None)
