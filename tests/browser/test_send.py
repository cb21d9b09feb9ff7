"""Sending files, and upload links."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect

from tests.browser.looking import PHONE, Look, findings, is_wider_than_the_window, looking
from tests.browser.test_pages import put
from tests.support.client import Client
from tests.support.service import Service
from tests.support.tokens import make_token
from tests.support.waiting import eventually

pytestmark = [pytest.mark.full, pytest.mark.browser]

EVIL = "<img src=x onerror=alert(1)>\u202egpj.exe"
SLOW_BYTES_S = 6 * 2**20


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service where everybody has to show who he is."""
    with Service(tmp_path_factory.mktemp("guarded")) as made:
        made.settings["api"]["listen"] = [made.address, "127.0.0.1:0"]
        made.write_config()
        yield made.start()


@pytest.fixture
def guarded_look(chromium: Browser, guarded: Service) -> Iterator[Look]:
    """Look at that one."""
    with looking(chromium, guarded) as look:
        yield look


def folder(directory: Path) -> Path:
    """A folder with files, one of an evil name, and an empty one."""
    made = directory / "photos"
    (made / "deep").mkdir(parents=True)
    (made / "nothing").mkdir()
    (made / "one.txt").write_bytes(b"1" * 1000)
    (made / "deep" / "none.txt").write_bytes(b"")
    (made / "deep" / EVIL).write_bytes(b"2" * 300_000)
    return made


def drop(page: Page, *paths: Path) -> None:
    """Drop files and folders on the page, as the system does."""
    devtools = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 200, "data": {
            "items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}})


def choose(page: Page, instance: str, path: str) -> None:
    """Say where to."""
    form = page.get_by_role("form", name="Send files")
    form.get_by_label("Instance").fill(instance)
    form.get_by_label("Directory, or path of one file").fill(path)


def send(page: Page) -> None:
    """Send what was chosen."""
    page.get_by_role("button", name=re.compile(r"^Send [0-9]")).click()


def follow(context: BrowserContext) -> list[Request]:
    """All requests of a browser from now on."""
    asked: list[Request] = []
    context.on("request", lambda request: asked.append(request))
    return asked


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, PHONE], ids=["light", "dark", "phone"])
def test_folder_that_is_dropped_arrives(look: Look, tmp_path: Path, options: Mapping[str, Any]) -> None:
    """With all that is in it, also what is empty or has an evil name; an empty folder is told; each has its receipt."""
    page = look.context(**options).new_page()
    page.goto("send")
    expect(page.get_by_role("heading", level=1)).to_have_text("Send files")
    assert findings(page) == []
    page.get_by_text("Mode, owner, directories, project").click()
    page.get_by_label("Missing directories").select_option("true")
    choose(page, "drop", "/in/")
    drop(page, folder(tmp_path))
    expect(page.get_by_text("1 entry skipped")).to_be_visible()
    expect(page.get_by_text("photos/nothing/")).to_be_visible()
    expect(page.get_by_role("row")).to_have_count(4)
    expect(page.get_by_role("table")).to_contain_text("<img src=x onerror=alert(1)>\\u202egpj.exe")
    assert findings(page) == []
    assert not is_wider_than_the_window(page)
    send(page)
    expect(page.get_by_text("3 delivered", exact=True)).to_be_visible()
    expect(page.locator("#announcer")).to_have_text("3 delivered")
    assert page.locator("img").count() == 0
    assert findings(page) == []
    assert not is_wider_than_the_window(page)
    page.get_by_role("link", name="/in/photos/ one.txt").click()
    expect(page.get_by_role("main")).to_contain_text("/in/photos/one.txt")


def test_what_will_be_superseded_is_seen_before_it_is(page: Page, service: Service, tmp_path: Path) -> None:
    """An upload to the same path that waits is told; afterwards it is superseded. A file that fails says why."""
    waits = put(service, "/missing/held.txt", "twice")
    eventually(lambda: service.client.task(waits)["state"] == "failed", what="a dead letter")
    (tmp_path / "held.txt").write_bytes(b"new")
    page.goto("send?instance=twice&path=/missing/")
    waiting = {**service.client.task(waits), "state": "held"}
    page.route("**/v1/tasks?*state=*", lambda route: route.fulfill(json={"tasks": [waiting], "next": None}))
    page.get_by_label("Choose files").set_input_files(tmp_path / "held.txt")
    expect(page.get_by_text("1 upload to the same paths is not delivered yet.")).to_be_visible()
    expect(page.get_by_text("Supersedes an upload that is held.")).to_be_visible()
    assert findings(page) == []
    send(page)
    expect(page.get_by_text("1 failed", exact=True)).to_be_visible()
    expect(page.get_by_role("table")).to_contain_text("/missing")


def test_upload_goes_on_after_a_pause_and_after_a_reload(page: Page, service: Service, tmp_path: Path) -> None:
    """Nothing of it is sent twice: it is asked how far it came; what arrives is the file."""
    content = bytes(range(256)) * (48 * 2**20 // 256)
    (tmp_path / "large.bin").write_bytes(content)
    page.goto("send?instance=resume&path=/large.bin")
    slow = page.context.new_cdp_session(page)
    slow.send("Network.enable")
    slow.send("Network.emulateNetworkConditions", {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": SLOW_BYTES_S})
    requests = follow(page.context)
    page.get_by_label("Choose files").set_input_files(tmp_path / "large.bin")
    send(page)
    table = page.get_by_role("table")
    expect(table.get_by_text(re.compile(r"being sent [1-9]"))).to_be_visible()
    page.get_by_role("button", name="Pause: /large.bin").click()
    expect(table.get_by_text(re.compile("paused"))).to_be_visible()
    page.get_by_role("button", name="Go on: /large.bin").click()
    expect(table.get_by_text(re.compile(r"being sent [1-9]"))).to_be_visible()
    page.get_by_role("button", name="Pause: /large.bin").click()
    page.reload()
    expect(page.get_by_role("heading", name="Not finished")).to_be_visible()
    assert findings(page) == []
    page.get_by_label("Choose files").set_input_files(tmp_path / "large.bin")
    send(page)
    expect(page.get_by_text("1 delivered", exact=True)).to_be_visible(timeout=30_000)
    asked = [(one.method, one.headers.get("upload-offset")) for one in requests if "/v1/tus/" in one.url]
    assert [method for method, _ in asked] == ["POST", "PATCH", "HEAD", "PATCH", "HEAD", "PATCH"]
    assert all(int(offset or 0) > 0 for method, offset in asked[2:] if method == "PATCH")
    answer = service.client.get("/v1/tasks?instance=resume")
    assert answer is not None
    [task] = answer.json["tasks"]
    assert task["sha256"] == hashlib.sha256(content).hexdigest()


def test_upload_that_is_given_up_is_gone(page: Page, tmp_path: Path) -> None:
    """Taken off the list before its end, nothing of it stays in the browser or the service."""
    (tmp_path / "large.bin").write_bytes(bytes(32 * 2**20))
    page.goto("send?instance=giveup&path=/large.bin")
    slow = page.context.new_cdp_session(page)
    slow.send("Network.enable")
    slow.send("Network.emulateNetworkConditions", {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": SLOW_BYTES_S})
    page.get_by_label("Choose files").set_input_files(tmp_path / "large.bin")
    send(page)
    expect(page.get_by_role("table").get_by_text(re.compile(r"being sent [1-9]"))).to_be_visible()
    with page.expect_response(lambda answer: answer.request.method == "DELETE") as ended:
        page.get_by_role("button", name="Remove: /large.bin").click()
    assert ended.value.status == 204
    assert page.evaluate("Object.keys(localStorage).filter((key) => key.startsWith('tus'))") == []


def test_link_is_made_opened_and_used_up(guarded_look: Look, guarded: Service, tmp_path: Path) -> None:
    """Its token is in no address that is sent, in no cookie, and gone from the address bar; the page shows nothing else."""
    look = guarded_look
    token = make_token(guarded.config, "links", may=["upload", "read", "delegate"], instances=["web1"])
    client = Client(look.address.removeprefix("http://"))
    eventually(lambda: (answer := client.get("/v1/tasks")) is not None and answer.status == 401, what="the token")
    maker = look.context().new_page()
    maker.goto("send")
    maker.get_by_label("Token").fill(token)
    maker.keyboard.press("Enter")
    maker.get_by_text("Make an upload link").click()
    form = maker.get_by_role("form", name="Make an upload link")
    form.get_by_label("Instance").fill("web1")
    form.get_by_label("Directory, or path of one file").fill("/")
    form.get_by_label("Files at most").fill("1")
    assert findings(maker) == []
    form.get_by_role("button", name="Make the link").click()
    link = maker.locator(".made code").text_content() or ""
    assert re.fullmatch(rf"{look.address}/ui/send#token=icour_\w+", link)

    phone: Mapping[str, Any] = PHONE
    context = look.context(**phone)
    asked = follow(context)
    guest = context.new_page()
    guest.goto(link)
    expect(guest.get_by_role("heading", level=1)).to_have_text("Send files")
    assert guest.url == f"{look.address}/ui/send"
    expect(guest.get_by_label("Instance")).to_have_value("web1")
    expect(guest.get_by_role("main")).to_contain_text("1 file")
    expect(guest.get_by_role("navigation")).to_have_count(0)
    expect(guest.locator("a[href^='/ui/']")).to_have_count(0)
    assert findings(guest) == []
    assert not is_wider_than_the_window(guest)
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_bytes(b"bytes")
        guest.get_by_label("Choose files").set_input_files(tmp_path / name)
        send(guest)
        expect(guest.get_by_text("delivered", exact=True)).to_be_visible()
    expect(guest.locator(".receipt")).to_contain_text("1 not accepted")
    assert findings(guest) == []
    assert context.cookies() == []
    secret = link.partition("#token=")[2]
    assert asked
    assert not [one.url for one in asked if secret in one.url or secret in (one.headers.get("referer") or "")]
    assert secret not in "".join(guest.evaluate("[...Object.entries(localStorage), ...Object.entries(sessionStorage)].flat()"))
    guest.reload()
    expect(guest.get_by_role("heading", level=1)).to_have_text("Open your link again")
    guest.goto(f"{look.address}/ui/send#token={secret[:-1]}x")
    expect(guest.get_by_role("heading", level=1)).to_have_text("This link counts no more")
    assert findings(guest) == []


def test_link_is_nobody_elses_session(guarded_look: Look, guarded: Service) -> None:
    """Who is signed in and opens a link sends as its holder, and is signed in as before elsewhere, also when it has ended."""
    look = guarded_look
    token = make_token(guarded.config, "ada", may=["read"])
    sender = make_token(guarded.config, "sender", may=["upload"], paths=["/in/**"])
    client = Client(look.address.removeprefix("http://"))
    eventually(lambda: (answer := client.get("/v1/tasks")) is not None and answer.status == 401, what="the token")
    context = look.context()
    page = context.new_page()
    page.goto("tasks")
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Tasks")
    other = context.new_page()
    other.goto(f"{look.address}/ui/send#token={sender}")
    expect(other.get_by_label("Directory, or path of one file")).to_have_value("/in/")
    expect(other.get_by_role("navigation")).to_have_count(0)
    other.goto(f"{look.address}/ui/send#token=wrong")
    expect(other.get_by_role("heading", level=1)).to_have_text("This link counts no more")
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Tasks")
    other.goto("tasks")
    expect(other.get_by_role("heading", level=1)).to_have_text("Tasks")


def test_who_may_only_send_signs_in_to_that_page(guarded_look: Look, guarded: Service, tmp_path: Path) -> None:
    """Others are not offered; what is accepted is told with its id."""
    token = make_token(guarded.config, "only", may=["upload"])
    client = Client(guarded_look.address.removeprefix("http://"))
    eventually(lambda: (answer := client.request("GET", "/v1/me", headers={"Authorization": f"Bearer {token}"})) is not None and answer.status == 200,
               what="the token")
    page = guarded_look.context().new_page()
    page.goto("")
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{guarded_look.address}/ui/send")
    expect(page.get_by_role("navigation").get_by_role("link")).to_have_text(["Send"])
    choose(page, "web1", "/only.txt")
    (tmp_path / "only.txt").write_bytes(b"bytes")
    page.get_by_label("Choose files").set_input_files(tmp_path / "only.txt")
    send(page)
    expect(page.get_by_text("1 accepted", exact=True)).to_be_visible()
    expect(page.get_by_text("What is accepted is safe")).to_be_visible()
    assert findings(page) == []
