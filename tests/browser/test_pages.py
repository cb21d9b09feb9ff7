"""Every page, as people see it."""

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from daemon.model.view import when
from tests.browser.looking import PHONE, Look, findings, is_wider_than_the_window
from tests.browser.stand_in import (
    ERROR,
    EVERYTHING,
    answering,
    counts,
    explanation,
    instance,
    instances,
    one_instance,
    overview,
)
from tests.support.service import Service
from tests.support.waiting import eventually

pytestmark = [pytest.mark.full, pytest.mark.browser]

EVIL = "/missing/<img src=x onerror=alert(1)>\u202egpj.exe"
DB = instance("db", (1, 2, 0, 0, 0, 0, 0, 1000), why="The instance is stopped.", failed=1)
LONG = "/" + "/".join("d" * 200 for _ in range(20)) + "/name"


def put(service: Service, path: str, instance: str = "web") -> str:
    """Upload a file; return its task's id."""
    answer = service.client.put(instance, path, b"bytes")
    assert answer is not None
    assert answer.status == 202, answer.body
    return answer.task_id


def failed(service: Service, path: str, instance: str = "web") -> str:
    """Upload a file into a directory that is missing; return its task's id when it is a dead letter."""
    task_id = put(service, path, instance)
    eventually(lambda: service.client.task(task_id)["state"] == "failed", what="a dead letter")
    return task_id


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, PHONE], ids=["light", "dark", "phone"])
def test_page_is_open_to_everybody(look: Look, service: Service, options: Mapping[str, Any]) -> None:
    """Axe finds nothing on any page, in either colours and on a phone, and nothing has to be scrolled sideways."""
    ids = [failed(service, "/missing/one"), put(service, "/delivered"), failed(service, EVIL)]
    done = {"actions": [{"action_id": "1", "at": when(time.time()), "by": "token:ada", "verb": "retry", "what": {"filter": {"state": ["failed"]}},
                         "tasks": 3, "changed": 2, "refused": 1, "done_at": when(time.time())}], "next": None}
    trouble = overview(problems=[{**ERROR, "instance": None}], counts=counts(queued=3, failed=2), remotes=[
        {"remote": "edge", "up": False, "since": when(time.time()), "error": ERROR, "next_try_at": when(time.time() + 60)}])
    page = look.context(answers={"actions": done, "overview": trouble, "instances": instances(DB), "instance": one_instance(DB),
                                 "explanation": explanation()}, **options).new_page()
    for path in ("", "instances", "instances/db", "tasks?state=failed", *(f"tasks/{one}" for one in ids), "actions", "nowhere/at/all"):
        page.goto(path)
        expect(page.get_by_text("Loading")).to_have_count(0)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert findings(page) == []
        assert not is_wider_than_the_window(page)
    page.goto("tasks?state=failed")
    page.get_by_role("checkbox", name="Mark all on this page").check()
    page.get_by_role("group", name="All that match").get_by_role("button", name="Retry").click()
    expect(page.get_by_role("dialog").get_by_text("These and no others")).to_be_visible()
    assert findings(page) == []


def test_explanations_lead_to_the_task_that_says_so_and_tell_what_comes_before_one(look: Look, service: Service) -> None:
    """An instance's page has the link; a task's has the number of those before it."""
    task_id = failed(service, "/missing/one")
    told = explanation(task_id=task_id)
    page = look.context(answers={"instance": {**one_instance(DB), "explanation": told}, "explanation": explanation()}).new_page()
    page.goto("instances/db")
    page.get_by_role("link", name=task_id).click()
    expect(page.get_by_text("Before it in its instance")).to_be_visible()


def test_hostile_names_are_text_and_are_seen(look: Look, service: Service) -> None:
    """Markup is read, not run; what turns text round, breaks lines or is not seen stands there in signs; 4 KiB fit."""
    evil, long = failed(service, EVIL, "mail"), failed(service, LONG, "mail")
    task = service.client.task(evil)
    other = evil[:-1] + ("1" if evil.endswith("0") else "0")
    listed = {"tasks": [{**task, "id": other, "path": "/srv/two\nlines\u200b\u0007", "instance": "<b>bold</b>", "client": "a\u202eb"}, task,
                        service.client.task(long)], "next": None}
    context = look.context(answers={"explanation": explanation(summary="<script>alert(1)</script>\u2066")}, **PHONE)
    page = context.new_page()
    page.route("**/v1/tasks?*", answering(listed))
    page.goto("tasks")
    table = page.get_by_role("table")
    expect(table).to_contain_text("/srv/two\\nlines\\u200b\\u0007")
    expect(table).to_contain_text("<b>bold</b>")
    expect(table).to_contain_text("<img src=x onerror=alert(1)>\\u202egpj.exe")
    assert not is_wider_than_the_window(page)
    for task_id in (evil, long):
        page.goto(f"tasks/{task_id}")
        expect(page.get_by_text("<script>alert(1)</script>\\u2066")).to_be_visible()
        assert not is_wider_than_the_window(page)
    assert page.locator("img").count() == 0


def test_worker_that_is_down_and_an_incus_that_is_away_are_seen_at_once(look: Look) -> None:
    """Both stand in the page's text without a click, with what to do, and so does each stuck instance."""
    missing = {"shard": 0, "worker": None, "at": None, "lanes": 0, "sessions": 0, "pushing": 0, "fault": "The database is damaged."}
    away = overview(
        shards=[missing], remotes=[{"remote": "edge", "up": False, "since": when(time.time() - 90), "error": ERROR, "next_try_at": None}],
        problems=[{"code": "no_worker", "message": "Shard 0 has no worker.", "hint": "Start it.", "instance": None}, {**ERROR, "instance": None}])
    page = look.context(answers={"overview": away, "instances": instances(DB), "instance": one_instance(DB)}).new_page()
    page.goto("")
    expect(page.get_by_role("heading", level=1)).to_have_text("3 things need you")
    for text in ("Shard 0 has no worker.", "Start it.", "The remote edge does not answer.", "The instance is stopped.", "The database is damaged."):
        expect(page.get_by_role("main")).to_contain_text(text)
    page.get_by_role("link", name="db").first.click()
    expect(page.get_by_role("region", name="Why is this stuck?")).to_contain_text("Starting the instance.")
    expect(page.get_by_role("progressbar")).to_be_visible()


def test_time_is_never_negative(look: Look, service: Service) -> None:
    """Where two clocks disagree, or what was due is late, it is now."""
    later = when(time.time() + 3600)
    task = {**service.client.task(failed(service, "/missing/clock")), "created_at": later, "updated_at": later}
    page = look.context(answers={"overview": overview(oldest_age_s=-5)}).new_page()
    page.route("**/v1/tasks?*", answering({"tasks": [task], "next": None}))
    page.goto("tasks")
    expect(page.get_by_role("row").nth(1)).to_contain_text("0 s ago")
    page.goto("")
    expect(page.get_by_text("oldest 0 s")).to_be_visible()


def test_log_command_is_copied_also_without_tls(look: Look, service: Service) -> None:
    """Where a browser has no clipboard for pages, as over plain HTTP, copying works all the same."""
    context = look.context()
    context.add_init_script("""
        Object.defineProperty(navigator, 'clipboard', {value: undefined});
        document.addEventListener('copy', () => { window.copied = String(getSelection()); });""")
    page = context.new_page()
    task_id = failed(service, "/missing/log")
    page.goto(f"tasks/{task_id}")
    page.get_by_role("button", name="Copy: journalctl").click()
    expect(page.get_by_role("status")).to_have_text("Copied")
    assert page.evaluate("window.copied") == f"journalctl INCUS_TASK_ID={task_id}"


def test_service_that_goes_away_is_told_and_comes_back_by_itself(look: Look) -> None:
    """What was seen last stays, and says how old it is; the page goes on as soon as there is an answer."""
    context = look.context(answers={"overview": overview(), "instances": instances()})
    page = context.new_page()
    page.goto("")
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing is stuck")
    context.route("**/v1/**", lambda route: route.abort())
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing is stuck")
    context.unroute("**/v1/**")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_page_is_kept_up_to_date_without_the_stream(look: Look, service: Service) -> None:
    """Where something on the way holds streams back, the page asks again and again, and says so."""
    context = look.context()
    context.route("**/v1/events?*", lambda route: route.abort())
    page = context.new_page()
    task_id = failed(service, "/missing/polled")
    page.goto(f"tasks/{task_id}")
    expect(page.get_by_text("Polling")).to_be_visible()
    answer = service.client.request("DELETE", f"/v1/tasks/{task_id}")
    assert answer is not None
    assert answer.json["state"] == "cancelled"
    expect(page.locator(".title-row")).to_contain_text("cancelled")


def test_everything_is_reached_by_keys(page: Page) -> None:
    """The first key leads past the navigation, a new page takes the focus, and a dialog keeps it until it is closed."""
    page.goto("tasks")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    page.get_by_role("link", name="Instances", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Instances")).to_be_focused()
    page.go_back()
    expect(page.get_by_role("heading", level=1, name="Tasks")).to_be_focused()


def test_colours_are_as_somebody_chose(look: Look) -> None:
    """The choice holds for the next visit, whatever the system prefers."""
    page = look.context(color_scheme="light").new_page()
    page.goto("")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_label("Colours").select_option("Dark")
    page.reload()
    expect(page.get_by_label("Colours")).to_have_value("dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_nobody_is_shown_what_he_may_not_see(look: Look) -> None:
    """Who sees a part is told so and sees that part; who may only send is led there; all others are told what is missing."""
    context = look.context(answers={"me": {**EVERYTHING, "sees_all": False, "may": ["read"]}, "overview": answering({"code": "action_not_allowed"}, 403),
                                    "instances": instances(DB)})
    page = context.new_page()
    page.goto("")
    expect(page.get_by_role("main")).to_contain_text("You see the tasks that your rights reach")
    expect(page.get_by_role("link", name="db").first).to_be_visible()
    # How instances stand is told to none of these two: they are led to their tasks, and offered nothing else.
    for bounds in ({"own": True}, {"paths": ["/srv/**"]}):
        context.route("**/v1/me", answering({**EVERYTHING, **bounds, "may": ["read"], "sees_all": False}))
        page.goto("")
        expect(page.get_by_role("heading", level=1)).to_have_text("Tasks")
        expect(page.get_by_role("navigation", name="Pages").get_by_role("link")).to_have_text(["Tasks", "Actions"])
        page.goto("instances/db?project=p")
        expect(page).to_have_url(f"{look.address}/ui/tasks?instance=db&project=p")
    context.route("**/v1/me", answering({**EVERYTHING, "may": ["upload"], "sees_all": False}))
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Send files")
    context.route("**/v1/me", answering({**EVERYTHING, "may": ["metrics"], "sees_all": False}))
    page.goto("")
    expect(page.get_by_role("heading", level=1)).to_have_text("You may not see tasks.")
    assert json.dumps(findings(page)) == "[]"
