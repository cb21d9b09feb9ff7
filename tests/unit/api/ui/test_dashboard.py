import hashlib
import re
from pathlib import Path

import pytest

from api.http.refusal_log import RefusalLog
from api.live_config import LiveConfig
from api.ui.dashboard import CSP, Dashboard
from api.ui.files import StaticFiles
from daemon.config import load
from daemon.errors import Rejected
from tests.support.addresses import Addresses

STATIC = Path(__file__).parents[4] / "api" / "ui" / "static"
OWN = {"Sec_Fetch_Site": "same-origin"}
BROWSER = {"Accept": "text/html,application/xhtml+xml;q=0.9"}


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> Addresses:
    """The dashboard of a service where nobody is known who shows nothing."""
    monkeypatch.delenv("INCUS_COURIER_CONFIG", raising=False)
    live = LiveConfig(load(None))
    made = Addresses(live, [], refused=Rejected("no_credential"))
    made.otherwise = Dashboard(live, made.doorkeeper, RefusalLog())
    return made


def test_page_is_the_same_for_everybody_and_at_every_address(addresses: Addresses) -> None:
    """Who has yet to sign in gets it, too; the policy lets in what is from here, and nothing that stands in the page."""
    page = addresses.ask("GET", "/ui/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["content-security-policy"] == CSP == (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'")
    told = {name: page.headers[name] for name in ("x-content-type-options", "referrer-policy", "cross-origin-opener-policy")}
    assert told == {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cross-origin-opener-policy": "same-origin"}
    assert addresses.ask("GET", "/ui/tasks/1?x=y").body == page.body
    again = addresses.ask("GET", "/ui/", If_None_Match=page.headers["etag"])
    assert (again.status, again.body, page.headers["cache-control"]) == (304, b"", "no-cache")
    assert not re.search(rb"style=|\son\w+=|<script(?! type=\"module\" src=)", page.body)


def test_files_may_be_kept_for_good_and_no_two_versions_are_mixed(addresses: Addresses) -> None:
    """The page names each module by what all of them are; under another name there is nothing."""
    names = re.findall(r'(?:href|src)="(/ui/static/[^"]+)"', addresses.ask("GET", "/ui/").body.decode())
    assert {name.rpartition("/")[2] for name in names} == {path.name for path in STATIC.iterdir() if path.is_file() and path.name != "index.html"}
    for name in names:
        file = addresses.ask("GET", name)
        assert (file.status, file.body) == (200, (STATIC / name.rpartition("/")[2]).read_bytes())
        assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert file.headers["content-security-policy"] == CSP
    module = next(name for name in names if name.endswith("/app.js"))
    assert addresses.ask("GET", module).headers["content-type"] == "text/javascript; charset=utf-8"
    for wrong in ("/ui/static/0/app.js", module.replace("app.js", "../files.py"), module.replace("app.js", "index.html"), "/ui/static/"):
        assert addresses.ask("GET", wrong).code == "not_found"


def test_library_of_others_is_what_its_licence_says_and_is_fetched_where_it_is_used(addresses: Addresses) -> None:
    """It is as npm has it, has its digest and the licences of all that is in it beside it, and delays no first page."""
    library, about = (STATIC / "vendor" / "tus.min.js").read_bytes(), (STATIC / "vendor" / "tus.min.txt").read_text()
    [package] = re.findall(r'^  "(tus-js-client@[0-9.]+) ', (STATIC.parents[2] / "scripts" / "vendor-ui").read_text(), re.MULTILINE)
    assert f"from: {package}, dist/tus.min.js" in about
    assert f"sha256: {hashlib.sha256(library).hexdigest()}\n" in about
    assert about.count("\n--- ") == 8
    assert "Copyright (c) 2015 tus" in about
    page = addresses.ask("GET", "/ui/").body.decode()
    assert "tus.min" not in page
    [folder] = set(re.findall(r"/ui/static/[^/]+/", page))
    assert addresses.ask("GET", f"{folder}vendor/tus.min.js").body == library
    assert addresses.ask("GET", f"{folder}vendor/tus.min.txt").headers["content-type"] == "text/plain; charset=utf-8"


def test_folder_has_another_name_when_any_file_changes(tmp_path: Path) -> None:
    """So nobody sees an old script beside a new page."""
    (tmp_path / "index.html").write_text('<!doctype html>\n    <!-- @MODULES@ -->\n<script src="@FOLDER@/a.js"></script>')
    (tmp_path / "a.js").write_text("1")
    before = StaticFiles.read("/s/", tmp_path)
    (tmp_path / "a.js").write_text("2")
    after = StaticFiles.read("/s/", tmp_path)
    assert before.folder != after.folder
    assert before.page_tag != after.page_tag
    assert f'<script src="/s/{after.folder}/a.js">'.encode() in after.page.body


def test_root_leads_a_browser_there_and_stays_as_it_was_for_programs(addresses: Addresses) -> None:
    """Only who wants to see a page is led on."""
    led = addresses.ask("GET", "/", b"", **BROWSER)
    assert (led.status, led.headers["location"]) == (302, "/ui/")
    assert addresses.ask("GET", "/ui").headers["location"] == "/ui/"
    assert addresses.ask("GET", "/", Accept="*/*").code == "no_credential"
    assert addresses.ask("POST", "/", b"", **BROWSER).code == "no_credential"
    assert addresses.ask("POST", "/ui/").headers["allow"] == "GET, HEAD"


def test_without_the_key_there_is_no_dashboard(addresses: Addresses) -> None:
    """All of it looks as if it had never been, also after a reload."""
    api = addresses.live.config.api.model_copy(update={"ui": False})
    addresses.live.config = addresses.live.config.model_copy(update={"api": api})
    asked = [("GET", "/ui/"), ("GET", "/"), ("POST", "/ui/session"), ("GET", "/ui")]
    assert {addresses.ask(method, path, b"", **BROWSER, **OWN).code for method, path in asked} == {"no_credential"}
    addresses.refused = None
    assert {addresses.ask(method, path, b"", **BROWSER, **OWN).code for method, path in asked} == {"not_found"}


def test_a_page_of_this_service_signs_in_and_out(addresses: Addresses) -> None:
    """A token that is somebody's becomes the cookie; one that is nobody's, or another page's request, does not."""
    addresses.refused = None
    begun = addresses.ask("POST", "/ui/session", b'{"token": " secret "}', **OWN)
    assert (begun.status, begun.headers["set-cookie"].split(";")[0]) == (204, "incus-courier-session=secret")
    ended = addresses.ask("DELETE", "/ui/session", b"", **OWN)
    assert (ended.status, "Max-Age=0" in ended.headers["set-cookie"]) == (204, True)
    for other in (dict[str, str](), {"Sec_Fetch_Site": "same-site"}, {"Sec_Fetch_Site": "none"}):
        refused = addresses.ask("POST", "/ui/session", b'{"token": "secret"}', **other)
        assert (refused.code, "set-cookie" in refused.headers) == ("cross_site", False)
        assert addresses.ask("DELETE", "/ui/session", b"", **other).code == "cross_site"
    for body in (b"", b"[]", b'{"token": 1}', b'{"token": "a", "more": 1}'):
        assert addresses.ask("POST", "/ui/session", body, **OWN).code == "bad_json"
    addresses.refused = Rejected("bad_credential")
    refused = addresses.ask("POST", "/ui/session", b'{"token": "\\ud800"}', **OWN)
    assert (refused.code, "set-cookie" in refused.headers) == ("bad_credential", False)


def test_scripts_know_no_way_to_markup_and_to_nowhere_else() -> None:
    """What comes from anyone becomes text; no script makes code or markup of a text, or asks another host."""
    forbidden = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser|srcdoc|https?://(?!www\.w3\.org/2000/svg)")
    found = {path.name: forbidden.findall(path.read_text()) for path in STATIC.iterdir() if path.is_file()}
    assert {name: texts for name, texts in found.items() if texts} == {}
