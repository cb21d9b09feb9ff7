"""`python -m tests.browser.picture FILE`: a picture of the dashboard of a demo, which `scripts/screenshot` takes."""

import hashlib
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import ViewportSize, sync_playwright

from daemon.model.upload import Destination, Upload, first_id_of
from daemon.spool import open_spool
from daemon.state.history import SLOTS, STEP_S, HistoryFile, Sample, clock
from daemon.state.layout import Layout
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.conftest import CHROMIUM
from tests.support.depot import sealed
from tests.support.service import Service

SIZE: Final[ViewportSize] = {"width": 1240, "height": 960}
#: Until rates are known and the picture has something that moves.
SETTLES_S: Final = 14.0
MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0
#: How many tasks wait for an instance whose disk is full, and how old they are at most.
BACKLOG: Final[dict[str, list[tuple[int, float]]]] = {
    "db-archive": [(60, HOUR_S), (310, 4 * HOUR_S), (640, 12 * HOUR_S), (420, DAY_S), (38, 2 * DAY_S)],
    "kiosk-7": [(18, 5 * MINUTE_S), (25, 15 * MINUTE_S), (96, HOUR_S), (130, 3 * HOUR_S)],
}
_CONTENT: Final = bytes(5000)
_FONTS: Final = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
<include>/etc/fonts/fonts.conf</include>
<alias binding="strong"><family>system-ui</family><prefer><family>Inter</family></prefer></alias>
<alias binding="strong"><family>sans-serif</family><prefer><family>Inter</family></prefer></alias>
<alias binding="strong"><family>sans</family><prefer><family>Inter</family></prefer></alias></fontconfig>"""


def main() -> None:
    """Take it."""
    fonts = Path(tempfile.mkdtemp()) / "fonts.conf"
    fonts.write_text(_FONTS)
    with tempfile.TemporaryDirectory() as directory, demo(Path(directory)) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"],
                                             env={**os.environ, "FONTCONFIG_FILE": str(fonts)})
        page = browser.new_page(viewport=SIZE, device_scale_factor=2, color_scheme="light")
        page.goto(f"{address}/ui/")
        page.get_by_role("region", name="Remotes").wait_for()
        page.wait_for_timeout(SETTLES_S * 1000)
        page.screenshot(path=sys.argv[1])
        browser.close()


@contextmanager
def demo(directory: Path) -> Iterator[str]:
    """A service with some hours of trouble behind it, and uploads coming in; its address."""
    with Service(directory, {"delivery": {"mkdirs": False, "drain_s": 5}, "retry": {
            "first_delay_s": 60, "max_delay_s": 600}}) as service, ExitStack() as stack:
        service.settings["api"]["listen"] = [service.address, "127.0.0.1:0"]
        service.write_config()
        _remember(service.layout)
        for instance in BACKLOG:
            stack.enter_context(_full_disk(service.layout.instances / instance))
        service.start()
        ended = threading.Event()
        sending = threading.Thread(target=_send, args=(service, ended))
        sending.start()
        port = service.events("api.started")[0]["listen"].rpartition(":")[2]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            ended.set()
            sending.join()


def _remember(layout: Layout) -> None:
    """Put what happened before: tasks that wait for long, and the last hour."""
    layout.create()
    now, chance = time.time(), random.Random(7)
    spool = open_spool(layout)
    with SqliteQueue(layout, 0, spool) as queue:
        for instance, groups in BACKLOG.items():
            ages = [chance.uniform(0.3, 1.0) * oldest for count, oldest in groups for _ in range(count)]
            some = [_upload(instance, now - age, chance) for age in sorted(ages, reverse=True)]
            for upload in some:
                incoming = spool.begin()
                incoming.write(_CONTENT)
                incoming.seal(upload).release()
            queue.put_many(sealed(*some), supersede=False)
    spool.close()
    hour = HistoryFile(layout)
    uploads = deliveries = 0.0
    for back in range(SLOTS - 1, -1, -1):
        wave = 11 + 6 * math.sin(back / 31) + 3 * math.sin(back / 7) + chance.uniform(-2, 2)
        uploads, deliveries = uploads + wave * STEP_S, deliveries + (wave - 0.4) * STEP_S * chance.uniform(0.93, 1.05)
        hour.add(Sample(at=now - back * STEP_S, tick=clock() - back * STEP_S, uploads=uploads - 1e6, upload_bytes=uploads * 4e4 - 1e12,
                        deliveries=deliveries - 1e6, delivery_bytes=deliveries * 4e4 - 1e12,
                        waiting=1747 - back * 1.4 + 40 * math.sin(back / 40), failed=0 if back > 210 else 4 if back > 90 else 9))
    hour.close()


@contextmanager
def _full_disk(directory: Path) -> Iterator[None]:
    """A disk without room is there for as long as that is used."""
    directory.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "demo", directory], check=True)
    try:
        (directory / "full").write_bytes(bytes(4096))
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def _upload(instance: str, at: float, chance: random.Random) -> Upload:
    task_id = str(uuid.UUID(int=uuid.UUID(first_id_of(at)).int | chance.getrandbits(60)))
    path = f"/srv/{time.strftime('%F-%H%M', time.gmtime(at))}-{chance.randrange(10**6):06}.csv"
    return Upload(task_id=task_id, destination=Destination("local", "default", instance, path), size=len(_CONTENT),
                  display_name=path.rpartition("/")[2], sha256=hashlib.sha256(_CONTENT).hexdigest(), created_at=at)


def _send(service: Service, ended: threading.Event) -> None:
    """Upload, about as fast as in the hour before; some of it into a directory that is missing."""
    chance, number = random.Random(1), 0
    while not ended.wait(chance.uniform(0.05, 0.1)):
        number += 1
        lost = number <= 9
        service.client.put("mail" if lost else chance.choice(["web1", "web2", "ci-runner-03"]),
                           f"/var/missing/{number}.eml" if lost else f"/srv/{number}.html", chance.randbytes(chance.randrange(80_000)))


if __name__ == "__main__":
    main()
