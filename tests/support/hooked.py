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


def told(receiver: Receiver) -> set[tuple[str, str]]:
    """The tasks of which a receiver was told, with their states."""
    return {(data["task_id"], data["state"]) for received in list(receiver.received)
            if (data := received.verified()["data"])}


def check_ids(receiver: Receiver) -> None:
    """What comes again has the id that it had, and what happened has one id: that, its task, state and time."""
    messages = {(received.message_id, received.body) for received in receiver.received}
    assert len({message_id for message_id, _ in messages}) == len(messages)
    happened = [(said["data"]["task_id"], said["type"], said["timestamp"]) for said in map(json.loads, dict(messages).values())]
    assert len(set(happened)) == len(happened)


def outcomes(service: Service) -> set[tuple[str, str]]:
    """The tasks of which a webhook has to be told, with their states."""
    return {(task.task_id, task.state.label) for task in service.tasks() if task.state.label in {"delivered", "failed"}}
