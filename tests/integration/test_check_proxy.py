"""What `check` finds of a proxy in front, tried with those of Debian."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.packages import unpacked
from tests.support.pretended_host import PretendedHost
from tests.support.waiting import PATIENCE_S, eventually

pytestmark = [pytest.mark.root, pytest.mark.full]

SITE: Final = "http://courier.example.org"
#: What docs/install.md says of nginx.
NGINX: Final = ("proxy_pass http://127.0.0.1:8420;", "proxy_http_version 1.1;", "proxy_request_buffering off;",
                "client_max_body_size 0;", "proxy_set_header Host $host;")
WELL: Final = "hands requests on before their body is there"
WAITS: Final = "waits for the whole body before it hands a request on"
ASKS: Final = "asks who it is before it hands anything on, so it was not tried"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PretendedHost]:
    """A host with the service on it, which knows of a proxy."""
    with PretendedHost() as host:
        (host.etc / "incus-courier/config.toml").write_text(
            f'[api]\nprocesses = 1\norigins = ["{SITE}"]\n[state]\ndirectory = "{host.directory}/state"\n[queue]\nshards = 1\n'
            '[target]\nkind = "directory"\n[limits]\nmin_free_bytes = 0\nreserve_bytes = 0\n')
        service = host.begin("incus-courier", "serve", log=host.directory / "log")
        eventually(lambda: answers(host, "http://127.0.0.1:8420"), what=f"the service ({host.directory}/log)")
        yield host
        service.terminate()
        service.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both proxies, not installed."""
    folder = tmp_path_factory.mktemp("proxies")
    return {"nginx": unpacked("nginx", folder) / "usr/sbin/nginx", "caddy": unpacked("caddy", folder) / "usr/bin/caddy"}


def answers(host: PretendedHost, site: str) -> bool:
    """True when something answers there."""
    return host.run("curl", "-s", "-o", "/dev/null", f"{site}/healthz").returncode == 0


@contextmanager
def nginx(host: PretendedHost, program: Path, *directives: str) -> Iterator[None]:
    """An nginx in front, whose only location has these directives."""
    configuration = host.directory / "nginx.conf"
    folders = " ".join(f"{kind}_temp_path {host.directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    configuration.write_text(f"user root; pid {host.directory}/nginx.pid; error_log stderr; events {{}}\nhttp {{\n  access_log off; {folders}\n"
                             f"  server {{ listen 80; location / {{ {' '.join(directives)} }} }}\n}}\n")
    with _runs(host, program, "-c", configuration, "-e", "stderr", "-g", "daemon off;"):
        yield


@contextmanager
def caddy(host: PretendedHost, program: Path, *directives: str) -> Iterator[None]:
    """A Caddy in front; the first of the directives are those of its site, after `|` those of `reverse_proxy`."""
    configuration = host.directory / "Caddyfile"
    middle = directives.index("|") if "|" in directives else len(directives)
    configuration.write_text("{{\n  admin off\n}}\n{} {{\n{}\n  reverse_proxy 127.0.0.1:8420 {{\n{}\n  }}\n}}\n".format(
        SITE, "\n".join(directives[:middle]), "\n".join(directives[middle + 1:])))
    with _runs(host, program, "run", "--adapter", "caddyfile", "--config", configuration):
        yield


@contextmanager
def _runs(host: PretendedHost, *command: str | Path) -> Iterator[None]:
    log = host.directory / "proxy.log"
    proxy = host.begin(*command, log=log)
    try:
        eventually(lambda: answers(host, SITE), what=f"the proxy ({log})")
        yield
    finally:
        proxy.terminate()
        proxy.wait(PATIENCE_S)


def found(host: PretendedHost) -> tuple[str, str]:
    """The level and the words of what `check` says of the proxy."""
    said = json.loads(host.run("incus-courier", "check", "--json").stdout)["findings"]
    [(level, detail)] = [(one["level"], one["detail"]) for one in said if one["what"] == f"proxy {SITE}"]
    return level, detail


@pytest.mark.parametrize(("directives", "level", "detail"), [
    (NGINX, "ok", WELL),
    ([one for one in NGINX if "buffering" not in one], "warning", WAITS),
    ([one for one in NGINX if "body_size" not in one], "error", "refuses bodies of limits.max_upload_bytes itself"),
    (["client_max_body_size 0;"], "warning", "has nothing of the service at /v1/"),
    (["client_max_body_size 0;", "proxy_request_buffering off;", "proxy_pass http://127.0.0.1:1;"], "warning",
     "answers 502 in the place of the service"),
    ([*NGINX, "auth_basic courier;", "auth_basic_user_file /dev/null;"], "ok", ASKS),
])
def test_nginx_is_seen_through(
    host: PretendedHost, programs: dict[str, Path], directives: list[str], level: str, detail: str,
) -> None:
    """As it is documented it is well; with its own defaults it keeps bodies back, and bounds them."""
    with nginx(host, programs["nginx"], *directives):
        assert found(host) == (level, detail)


@pytest.mark.parametrize(("directives", "level", "detail"), [
    ([], "ok", WELL),
    (["|", "buffer_requests"], "warning", WAITS),
    (["basicauth {", "a JDJhJDE0JGJsYWJsYWJsYWJsYWJsYWJsYWJsYQ==", "}"], "ok", ASKS),
])
def test_caddy_is_seen_through(
    host: PretendedHost, programs: dict[str, Path], directives: list[str], level: str, detail: str,
) -> None:
    """As it is documented it is well; who has it keep requests back is told."""
    with caddy(host, programs["caddy"], *directives):
        assert found(host) == (level, detail)


def test_proxy_that_is_away_is_told(host: PretendedHost) -> None:
    """Nobody answers there from here."""
    assert found(host) == ("warning", "not reached from here: [Errno 111] Connection refused")
