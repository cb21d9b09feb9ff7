"""The list of tasks, and acting on them."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.looking import Look
from tests.browser.stand_in import EVERYTHING
from tests.browser.test_pages import failed, put
from tests.support.service import Service
from tests.support.waiting import eventually

pytestmark = [pytest.mark.full, pytest.mark.browser]


def state(service: Service, task_id: str) -> str:
    """The state of a task."""
    found: str = service.client.task(task_id)["state"]
    return found


def row(page: Page, name: str) -> Locator:
    """The row of the file of that name."""
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name))


def test_address_has_all_that_somebody_filters_by(page: Page, service: Service) -> None:
    """So the same is seen after a reload, by who gets the link, and going back shows what was before."""
    failed(service, "/missing/filtered", "filter")
    put(service, "/there", "filter")
    page.goto("tasks")
    page.get_by_label("Instance", exact=True).fill("filter")
    expect(page).to_have_url(re.compile(r"instance=filter"))
    expect(page.get_by_role("row")).to_have_count(3)
    page.get_by_role("search").get_by_text("failed", exact=True).click()
    expect(page).to_have_url(re.compile(r"instance=filter&state=failed|state=failed&instance=filter"))
    expect(page.get_by_role("row")).to_have_count(2)
    page.reload()
    expect(page.get_by_label("Instance", exact=True)).to_have_value("filter")
    expect(page.get_by_role("row")).to_have_count(2)
    page.go_back()
    expect(page.get_by_role("row")).to_have_count(3)
    page.get_by_role("link", name="Clear filters").click()
    expect(page.get_by_label("Instance", exact=True)).to_have_value("")


def test_pages_stay_right_while_rows_move(page: Page, service: Service) -> None:
    """No row is missed and none comes twice, whatever is uploaded meanwhile; what is new is told, not pushed in between."""
    ids = [put(service, f"/many-{number}", "many") for number in range(120)]
    page.goto("tasks?instance=many")
    expect(page.get_by_role("row")).to_have_count(51)
    seen = page.locator("tbody a.task-link").evaluate_all("links => links.map((link) => link.href.split('/').pop())")
    newest = put(service, "/many-new", "many")
    expect(page.get_by_text("There are newer tasks")).to_be_visible()
    assert page.locator("tbody a.task-link").first.get_attribute("href") == f"/ui/tasks/{ids[-1]}"
    for count in (51, 21):
        page.get_by_role("link", name="Older").click()
        expect(page.get_by_role("row")).to_have_count(count)
        expect(page.locator(".dim")).to_have_count(0)
        seen += page.locator("tbody a.task-link").evaluate_all("links => links.map((link) => link.href.split('/').pop())")
    assert seen == ids[::-1]
    page.get_by_role("link", name="Newer").click()
    expect(page.get_by_role("row")).to_have_count(51)
    page.get_by_role("link", name="Newest").click()
    expect(page.locator("tbody a.task-link").first).to_have_attribute("href", f"/ui/tasks/{newest}")


def test_row_changes_where_it_is(page: Page, service: Service) -> None:
    """A task that leaves the filter keeps its place, with its new state: nothing moves under somebody's hand."""
    ids = [failed(service, f"/missing/stay-{number}", "stay") for number in range(3)]
    page.goto("tasks?instance=stay&state=failed")
    expect(page.get_by_role("row")).to_have_count(4)
    assert service.client.request("DELETE", f"/v1/tasks/{ids[1]}") is not None
    expect(row(page, "stay-1")).to_contain_text("cancelled")
    expect(page.get_by_role("row")).to_have_count(4)


def test_one_task_is_acted_on_from_its_page(page: Page, service: Service) -> None:
    """What it would be is shown first; doing it changes the page at once, and going back keeps it."""
    task_id = failed(service, "/missing/one-task", "one")
    page.goto(f"tasks/{task_id}")
    expect(page.get_by_role("link", name="Save its bytes")).to_have_attribute("href", f"/v1/tasks/{task_id}/content")
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("These and no others")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert state(service, task_id) == "failed"
    page.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete 1 task").click()
    expect(dialog).to_contain_text("1 task changed")
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator(".title-row")).to_contain_text("cancelled")
    expect(page.get_by_role("button", name="Retry")).to_have_count(0)
    page.get_by_role("link", name="Actions", exact=True).click()
    done = page.get_by_role("row").filter(has=page.get_by_role("link", name=task_id))
    expect(done).to_contain_text("Delete")
    expect(done).to_contain_text("1 changed")


def test_marked_tasks_stay_marked_and_are_acted_on(page: Page, service: Service) -> None:
    """Marks hold from page to page; those in no fitting state are left out, and said so."""
    ids = [failed(service, f"/missing/marked-{number}", "marked") for number in range(3)]
    put(service, "/fine", "marked")
    page.goto("tasks?instance=marked")
    expect(page.get_by_role("row")).to_have_count(5)
    for name in ("marked-0", "marked-1", "fine"):
        row(page, name).get_by_role("checkbox").check()
    page.get_by_role("link", name="Overview").click()
    page.go_back()
    bar = page.get_by_role("region", name="3 marked")
    bar.get_by_role("button", name="Retry").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("2 tasks")
    expect(dialog).to_contain_text("1 marked task left out")
    assert service.client.put("marked", "/missing/x", b"", mkdirs="true") is not None
    dialog.get_by_role("button", name="Retry 2 tasks").click()
    expect(dialog).to_contain_text("2 tasks changed")
    eventually(lambda: [state(service, one) for one in ids] == ["delivered", "delivered", "failed"], what="the retry")
    dialog.get_by_role("button", name="Close").click()
    expect(bar).to_have_count(0)


def test_all_that_match_are_frozen_by_their_preview(page: Page, service: Service) -> None:
    """Retrying takes the tasks that were shown, and none that came between the preview and the click."""
    ids = [failed(service, f"/gone/all-{number}", "all") for number in range(8)]
    page.goto("tasks?instance=all&state=failed")
    page.get_by_role("group", name="All that match").get_by_role("button", name="Retry").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", level=2)).to_have_text("Retry 8 tasks?")
    late = failed(service, "/gone/late", "all")
    assert service.client.put("all", "/gone/x", b"", mkdirs="true") is not None
    dialog.get_by_role("button", name="Retry 8 tasks").click()
    expect(dialog).to_contain_text("8 tasks changed")
    eventually(lambda: {state(service, one) for one in ids} == {"delivered"}, what="the retry")
    assert state(service, late) == "failed"


def test_held_back_and_let_go_again(page: Page, service: Service) -> None:
    """With the worker away, what is asked for is kept; as soon as there is one it is done."""
    service.kill("worker-0")
    task_id = put(service, "/held", "hold")
    page.goto(f"tasks/{task_id}")
    dialog = page.get_by_role("dialog")
    page.get_by_role("button", name="Hold").click()
    dialog.get_by_role("button", name="Hold 1 task").click()
    expect(dialog).to_contain_text("as soon as a worker is there")
    dialog.get_by_role("button", name="Close").click()
    service.start()
    expect(page.locator(".title-row")).to_contain_text("held")
    page.get_by_role("button", name="Release").click()
    dialog.get_by_role("button", name="Release 1 task").click()
    expect(dialog).to_contain_text("1 task changed")
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator(".title-row")).to_contain_text("delivered")


def test_nothing_is_offered_that_somebody_may_not_do(look: Look, service: Service) -> None:
    """Who may read and retry sees one button; the service decides in any case."""
    task_id = failed(service, "/missing/rights", "rights")
    page = look.context(answers={"me": {**EVERYTHING, "may": ["read", "retry"]}}).new_page()
    page.goto(f"tasks/{task_id}")
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    assert page.get_by_role("group", name="Actions").get_by_role("button").count() == 1
    assert page.get_by_role("link", name="Save its bytes").count() == 0
