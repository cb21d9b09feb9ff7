"""A service that tells a webhook."""

import json
from pathlib import Path
from typing import Any

from tests.support.command import Done, incus_courier
from tests.support.receiver import SECRET, Receiver
from tests.support.service import Service, Settings


class HookedService(Service):
    """A service that tells one webhook, `ci`, whose secret is in a file."""

    def __init__(self, directory: Path, url: str, settings: Settings | None = None) -> None:
        """Everything is below `directory`; nothing is started yet."""
        self._url = url
        super().__init__(directory, settings)

    def write_config(self) -> None:
        """Write the configuration file."""
        super().write_config()
        self.secret.write_text(SECRET)
        hook = {"name": "ci", "url": self._url, "secret": str(self.secret)}
        lines = ["[[webhooks]]", *(f"{key} = {json.dumps(value)}" for key, value in hook.items()),
                 "[sender]", 'allow = ["127.0.0.0/8", "::1"]']
        self.config.write_text(self.config.read_text() + "\n".join(lines) + "\n")

    @property
    def secret(self) -> Path:
        """The file of the secret."""
        return self.directory / "secret"

    def command(self, *words: str) -> Done:
        """`incus-courier webhooks WORDS`."""
        return incus_courier("--config", str(self.config), "webhooks", *words)

    def ask(self, path: str, method: str = "GET") -> Any:
        """The JSON that the API answers."""
        answer = self.client.request(method, f"/v1/webhooks{path}")
        assert answer is not None
        return answer.json


def told(receiver: Receiver) -> dict[tuple[str, str], set[str]]:
    """Under which ids a receiver was told each state of each task."""
    found: dict[tuple[str, str], set[str]] = {}
    for received in list(receiver.received):
        data = received.verified()["data"]
        found.setdefault((data["task_id"], data["state"]), set()).add(received.message_id)
    return found


def outcomes(service: Service) -> set[tuple[str, str]]:
    """The tasks of which a webhook has to be told, with their states."""
    return {(task.task_id, task.state.label) for task in service.tasks() if task.state.label in {"delivered", "failed"}}
