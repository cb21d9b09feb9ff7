"""Signing in and out."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.looking import Look, findings
from tests.support.client import Client
from tests.support.service import Service
from tests.support.tokens import make_token, revoke_token
from tests.support.waiting import eventually

pytestmark = [pytest.mark.full, pytest.mark.browser]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of its own: with the first token, everybody has to show who he is."""
    directory: Path = tmp_path_factory.mktemp("sign-in")
    with Service(directory) as made:
        made.settings["api"]["listen"] = [made.address, "127.0.0.1:0"]
        made.write_config()
        yield made.start()


def test_session_begins_with_a_token_and_ends_with_it_in_every_tab(look: Look, service: Service) -> None:
    """A wrong token is told; a right one leads to the page that was asked for; signing out, and a revoked token, end all."""
    token = make_token(service.config, "ada", may=["read"])
    client = Client(look.address.removeprefix("http://"))
    eventually(lambda: (answer := client.get("/v1/tasks")) is not None and answer.status == 401, what="the token")

    context = look.context()
    page, other = context.new_page(), context.new_page()
    page.goto("tasks?state=failed")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    assert findings(page) == []
    page.get_by_label("Token").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("This token is wrong")
    other.goto("actions")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Tasks")
    expect(page).to_have_url(f"{look.address}/ui/tasks?state=failed")
    expect(other.get_by_role("heading", level=1)).to_have_text("Actions")
    [cookie] = context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("incus-courier-session", True, "Strict")
    page.reload()
    expect(page.get_by_text("token:ada")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    for one in (page, other):
        expect(one.get_by_role("heading", level=1)).to_have_text("Sign in")
    assert context.cookies() == []
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Tasks")
    revoke_token(service.config, "ada")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    expect(page.get_by_role("alert")).to_contain_text("You are signed out")
