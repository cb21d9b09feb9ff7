"""The three fields by which a receiver knows who sent a message (Standard Webhooks 1.0). Pure."""

import base64
import hashlib
import hmac
from collections.abc import Sequence


def signed_fields(message_id: str, timestamp: int, body: bytes, secrets: Sequence[bytes]) -> list[tuple[str, str]]:
    """The fields of a message that is sent at that time, in seconds since the epoch: a signature for each secret."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    signatures = (hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets)
    return [("webhook-id", message_id), ("webhook-timestamp", str(timestamp)),
            ("webhook-signature", " ".join(f"v1,{base64.b64encode(found).decode()}" for found in signatures))]
