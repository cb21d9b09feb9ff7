"""Following tasks with a browser's own client, as Node has it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.state.layout import Layout
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.integration.api.running import Api
from tests.support.depot import an_upload, sealed

Start = Callable[..., Api]

SCRIPT = """
const source = new EventSource(process.argv[1]);
const say = (value) => console.log(JSON.stringify(value));
source.onopen = () => say("open");
source.addEventListener("task", (event) => say(JSON.parse(event.data).task_id));
source.addEventListener("reset", () => say("reset"));
source.onmessage = () => say("nameless");
// While it waits to come again, Node would end.
setInterval(() => {}, 1000);
"""


def eventsource() -> list[str]:
    """How Node is told to have it, and to run the script."""
    return ["node", "--no-warnings", "--experimental-eventsource", "--eval", SCRIPT]


@pytest.mark.full
def test_browser_that_loses_its_stream_misses_nothing_even_before_the_first_event(start: Start, tmp_path: Path) -> None:
    """It comes again by itself, with the position that it was given without an event; then with that of an event."""
    api = start()
    port = api.port

    def happens() -> str:
        upload = an_upload()
        with SqliteQueue(Layout(api.state), upload.destination.shard(2)) as queue:
            queue.put_many(sealed(upload), supersede=False)
        return upload.task_id

    with subprocess.Popen([*eventsource(), f"http://127.0.0.1:{port}/v1/events"], stdout=subprocess.PIPE, text=True) as browser:
        try:
            assert browser.stdout is not None
            lines = map(json.loads, browser.stdout)
            assert next(lines) == "open"
            for _ in range(2):
                assert api.stop() == 0
                missed = happens()
                api = start(api={"listen": [f"127.0.0.1:{port}", f"unix:{tmp_path}/sock"]})
                assert [next(lines), next(lines)] == ["open", missed]
                now = happens()
                assert next(lines) == now
        finally:
            browser.kill()
