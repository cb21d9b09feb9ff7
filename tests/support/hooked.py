"""A service that tells a webhook."""

import json
from collections import Counter
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


def told(receiver: Receiver) -> set[tuple[str, str]]:
    """The tasks of which a receiver was told, with their states."""
    return {(data["task_id"], data["state"]) for received in list(receiver.received)
            if (data := received.verified()["data"])}


def keeps_ids(receiver: Receiver) -> bool:
    """True when what came again had the id that it had, and what happened has one id: that is a task, its state and time."""
    bodies: dict[str, set[bytes]] = {}
    happened = Counter[tuple[str, str, str]]()
    for received in receiver.received:
        bodies.setdefault(received.message_id, set()).add(received.body)
    for same in bodies.values():
        said = json.loads(min(same))
        happened[said["data"]["task_id"], said["type"], said["timestamp"]] += 1
    return {len(same) for same in bodies.values()} | set(happened.values()) == {1}


def outcomes(service: Service) -> set[tuple[str, str]]:
    """The tasks of which a webhook has to be told, with their states."""
    return {(task.task_id, task.state.label) for task in service.tasks() if task.state.label in {"delivered", "failed"}}
