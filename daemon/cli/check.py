"""`incus-courier check`: is everything there that the service needs? Each failure comes with what to do about it."""

import errno
import json
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from daemon import config as configuration
from daemon.access.openness import only_known_may
from daemon.access.token_file import (
    READERS,
    TOKENS_FILE,
    Tokens,
    TokenState,
    read_tokens,
    readers_gid,
    token_file_of,
)
from daemon.cli import check_machine, machine_facts
from daemon.cli.all_shards import open_all, shards_of
from daemon.cli.check_cells import cell_findings, moving_finding
from daemon.cli.check_result import CheckResult, Level, warning
from daemon.cli.check_tls import tls_findings
from daemon.cli.check_webhooks import INSTALLED_SECRETS, sender_finding, webhook_findings
from daemon.config import INSTALLED_FILE, LOCAL, Config
from daemon.errors import CannotStart, CourierError
from daemon.model.grant import Grant
from daemon.partials import open_partials
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK
from daemon.process.isolated import python
from daemon.process.listeners import look_at
from daemon.process.output import say, say_json
from daemon.process.privileges import Identity, become, identity_to_take
from daemon.spool import open_spool
from daemon.state.layout import Layout, inode
from daemon.state.tenure import read_token, refusal, this_host
from daemon.task_queue import TaskQuestion
from daemon.task_queue.sqlite import notes
from daemon.task_queue.sqlite.trial import try_out
from daemon.task_queue.sqlite.versions import look_over

#: What the worker's unit names in LoadCredential=remotes:
INSTALLED_CREDENTIALS: Final = Path("/etc/incus-courier/credentials")
#: Where Incus listens on a machine of its own.
_INCUS_SOCKETS: Final = ("/var/lib/incus/unix.socket", "/run/incus/unix.socket", "/var/lib/lxd/unix.socket")
_API_USER: Final = "incus-courier-api"
_WORKER_USER: Final = "incus-courier-worker"
#: Whose members share the state, and whose members may send by the Unix socket.
_STATE_GROUP: Final = "incus-courier-state"
_SENDERS_GROUP: Final = "incus-courier"
#: Tokens that are named in one line.
_NAMES_AT_MOST: Final = 10


_WORDS: Final = {Level.OK: "ok  ", Level.WARNING: "warn", Level.ERROR: "FAIL"}


def check(config: Config, config_file: str | None, *, as_json: bool = False) -> int:
    """Print a line for each thing that was looked at; return EXIT_FAILED when one of them is an error.

    What is well now and is to be mended all the same is a warning, which fails nothing.
    """
    findings = list(_findings(config, config_file))
    if as_json:
        say_json({"findings": [finding.as_json() for finding in findings]})
    for finding in () if as_json else findings:
        say(f"{_WORDS[finding.level]} {finding.what}: {finding.detail}")
        for line in (finding.why, finding.hint):
            if finding.level is not Level.OK and line:
                say(f"     {line}")
    return EXIT_OK if all(finding.ok for finding in findings) else EXIT_FAILED


def _findings(config: Config, config_file: str | None) -> Iterator[CheckResult]:
    yield CheckResult("configuration", True, str(configuration.find_file(config_file) or "the built-in defaults"))
    installed = configuration.find_file(config_file) == INSTALLED_FILE
    if installed and os.geteuid() != 0:
        yield warning("user", "not root, who alone may read all that is looked at", "What fails here may be well.",
                      "sudo incus-courier check")
    yield _try("addresses", lambda: _check_addresses(config, configuration.find_file(config_file)))
    yield from (CheckResult(*finding) for finding in tls_findings(config, installed=installed))
    # Before root gives its power away: only it and the API read them.
    yield _try_tokens(token_file_of(configuration.find_file(config_file)), time.time())
    yield from cell_findings(config, configuration.find_file(config_file))
    # With other cells the same tokens are good for what this one has not.
    alone = all(cell.name == config.cell.name for cell in config.cells)
    grants = _grants(token_file_of(configuration.find_file(config_file)), time.time()) if alone else {}
    yield from check_machine.unreachable_remotes(
        {name: grant.remotes for name, grant in grants.items()}, [LOCAL, *config.remotes])
    yield from webhook_findings(config)
    layout = Layout(config.state.path)
    yield from _check_machine(layout)
    if installed:
        yield from _check_installed(layout, config)
    try:
        owner = identity_to_take(layout)
    except CourierError as error:
        yield CheckResult("state directory", False, error.detail, error.kind.hint)
        return
    # Only root can read the keys of remote servers, so this comes before it gives its power away.
    remotes, instances = _check_remotes(config_file, owner)
    if owner is not None:
        become(owner, layout)
    yield from _check_state(layout, config)
    yield check_machine.clock(time.time(), _newest(config), synchronised=machine_facts.clock_is_synchronised())
    for origin in config.api.origins:
        yield check_machine.proxy(origin, machine_facts.ask_proxy(origin, config.limits.max_upload_bytes))
    if config.webhooks:
        yield sender_finding(config)
    yield from remotes
    if instances is not None:
        yield from check_machine.unknown_instances(
            {name: grant.instances for name, grant in grants.items()}, instances)


def _check_machine(layout: Layout) -> Iterator[CheckResult]:
    yield check_machine.kernel(f"Linux {os.uname().release}", renames=machine_facts.renames_without_replacing())
    room = machine_facts.room_of(layout.directory)
    if room is not None:
        yield from check_machine.room(room)


def _check_installed(layout: Layout, config: Config) -> Iterator[CheckResult]:
    """What packages and administrators decide: units, groups, owners."""
    units = machine_facts.service_units(config.queue.shards)
    yield from check_machine.units(units)
    yield from check_machine.sandbox(
        units, state=str(layout.directory), listen=config.api.listen,
        files={check_machine.API: [config.tls.certificate, config.tls.key, config.tls.client_ca],
               check_machine.WORKER: [path for remote in (config.incus, *config.remotes.values())
                                      for path in (remote.client_cert, remote.client_key, remote.server_cert)]},
        far=[name for name, remote in {LOCAL: config.incus, **config.remotes}.items()
             if any(endpoint.startswith("https://") for endpoint in remote.endpoints)])
    yield from _check_groups(units, config)
    wanted = machine_facts.installed_owners()
    if wanted and str(layout.directory) == wanted[0].path:
        yield from check_machine.owners(machine_facts.owned(owned.path for owned in wanted), wanted)
    beside = INSTALLED_FILE.parent
    yield from check_machine.closed(machine_facts.owned([str(beside), str(INSTALLED_FILE)]), secret=False)
    yield from check_machine.closed(machine_facts.owned(
        [str(beside / TOKENS_FILE), str(INSTALLED_CREDENTIALS), str(INSTALLED_SECRETS)]), secret=True)


def _check_groups(units: Sequence[check_machine.Unit], config: Config) -> Iterator[CheckResult]:
    worker = [group for unit in units if unit.name.startswith(check_machine.WORKER)
              for group in unit.shown.get("SupplementaryGroups", "").split()]
    sockets = [endpoint for endpoint in config.incus.endpoints or _INCUS_SOCKETS if not endpoint.startswith("https://")]
    incus = machine_facts.socket_group(sockets)
    if incus is not None and config.target.kind != "directory":
        yield check_machine.group(_WORKER_USER, incus, [*machine_facts.groups_of(_WORKER_USER), *worker],
                                  "The worker may not use Incus's socket, so nothing is delivered.")
    yield check_machine.group(_API_USER, _STATE_GROUP, machine_facts.groups_of(_API_USER),
                              "The API cannot reach the queue.")
    person = machine_facts.administrator()
    if person is not None:
        yield check_machine.group(person, _SENDERS_GROUP, machine_facts.groups_of(person),
                                  "Without it, uploads by the Unix socket are refused.", needed=False)


def _grants(path: Path | None, now: float) -> dict[str, Grant]:
    """What each valid token is for, by its name; none where the file cannot be read."""
    try:
        tokens = read_tokens(path) if path is not None else Tokens()
    except (CourierError, OSError):
        # Said already.
        return {}
    return {token.name: token.grant for token in tokens.every if tokens.state(token, now).is_valid}


def _newest(config: Config) -> float | None:
    """When the newest upload was accepted, in seconds since the epoch; None where nothing is known."""
    try:
        with open_all(config) as shards:
            found = shards.search(TaskQuestion(), None, 1).tasks
    except (CourierError, OSError):
        return None
    return found[0].upload.created_at if found else None


def _check_state(layout: Layout, config: Config) -> Iterator[CheckResult]:
    if os.geteuid() == 0 and _is_unmade(layout):
        # Made by root, it would shut out the service's users, who make it at their first start.
        yield _try("state directory", lambda: _check_place(layout, config))
        return
    directory = _try("state directory", lambda: _check_directories(layout))
    yield directory
    if directory.ok:
        yield _try("host", lambda: _check_host(layout, config))
        yield _try("spool", lambda: _check_spool(layout, config))
        yield _try("SQLite", lambda: try_out(layout))
        yield from _check_shards(layout, config)
        if config.cells:
            yield _try_moving(layout, config)


def _try_moving(layout: Layout, config: Config) -> CheckResult:
    try:
        return moving_finding(layout, config)
    except CourierError as error:
        return CheckResult("moving", False, error.detail, error.kind.hint)
    except OSError as error:
        return CheckResult("moving", False, f"{layout.released}: {error.strerror}", "See docs/scaling.md.")


def _check_shards(layout: Layout, config: Config) -> Iterator[CheckResult]:
    try:
        made = [shard for shard in shards_of(layout, config) if notes.exists(layout, shard)]
    except CourierError as error:
        yield CheckResult("queue", False, error.detail, error.kind.hint)
        return
    for shard in made:
        yield _try(f"shard {shard}", partial(look_over, layout, shard))


def _try(what: str, look: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(what, True, look())
    except CourierError as error:
        return CheckResult(what, False, error.detail, error.kind.hint)
    except OSError as error:
        return CheckResult(what, False, str(error), "Check the directory's owner, its permissions and its filesystem.")


def _check_addresses(config: Config, file: Path | None) -> str:
    look_at(config.api.listen, identified=only_known_may(config, file), allow_anonymous=config.api.allow_anonymous)
    return ", ".join(config.api.listen)


def _try_tokens(path: Path | None, now: float) -> CheckResult:
    said = _try("tokens", lambda: _check_tokens(path, now))
    if not said.ok or ";" not in said.detail:
        return said
    return warning("tokens", said.detail, "Who shows one that has expired is refused.",
                   "incus-courier token new OTHER --expires 90d …, then incus-courier token revoke NAME")


def _check_tokens(path: Path | None, now: float) -> str:
    if path is None:
        return "none: there is no configuration file that they could be beside"
    tokens = read_tokens(path)
    if not tokens.any_made:
        return f"none in {path}"
    if path.parent == configuration.INSTALLED_FILE.parent:
        _check_readers(path)
    names: dict[TokenState, list[str]] = {state: [] for state in TokenState}
    for token in tokens.every:
        names[tokens.state(token, now)].append(token.name)
    told = [f"{label}: {_some(names[state])}" for label, state in (
        ("expire within 14 days", TokenState.EXPIRES_SOON), ("expired", TokenState.EXPIRED)) if names[state]]
    valid = sum(len(names[state]) for state in TokenState if state.is_valid)
    return "; ".join([f"{valid} valid in {path}", *told])


def _check_readers(path: Path) -> None:
    """Raise CannotStart when the API of the installed service cannot read the file."""
    found, gid = path.stat(), readers_gid()
    if gid is not None and not (found.st_gid == gid and found.st_mode & stat.S_IRGRP):
        raise CannotStart("bad_tokens", f"{path}: the API cannot read it. Give it to the group: chgrp {READERS} {path};"
                                        f" chmod 0640 {path}")


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_AT_MOST
    return ", ".join(names[:_NAMES_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _is_unmade(layout: Layout) -> bool:
    try:
        return not inode(layout.queue)
    except OSError:
        # What is in the way is said by who tries to make it.
        return False


def _check_place(layout: Layout, config: Config) -> str:
    place = next(path for path in (layout.directory, *layout.directory.parents) if os.path.lexists(path))
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(place))
    if not os.access(place, os.W_OK):
        raise layout.read_only()
    free = _enough(shutil.disk_usage(place).free, config)
    return f"{layout.directory}: empty until the service starts for the first time, {free // 2**20} MiB free"


def _check_directories(layout: Layout) -> str:
    layout.create()
    return str(layout.directory)


def _check_host(layout: Layout, config: Config) -> str:
    me, token = this_host(config.state.host), read_token(layout)
    reason = refusal(token, me, time.time())
    if reason is not None:
        raise CannotStart("state_in_use", reason)
    return me.name if token is None or token.host == me.name else f"{me.name}; {token.host} used the state before"


def _check_spool(layout: Layout, config: Config) -> str:
    spool = open_spool(layout)
    spool.begin(1).discard()
    with closing(open_partials(layout, spool)) as partials:
        if not partials.is_in_place():
            raise CourierError("storage_failed", f"{layout.partials} is no directory on the filesystem of"
                                                 f" {layout.spool}, so every resumable upload is refused.")
    return f"writable, {_enough(spool.free_bytes(), config) // 2**20} MiB free"


def _enough(free: int, config: Config) -> int:
    """The free bytes, if those are enough to take an upload. Raises CourierError."""
    if free < config.limits.min_free_bytes:
        raise CourierError("no_room", f"{free} bytes are free; limits.min_free_bytes wants "
                                      f"{config.limits.min_free_bytes}, so every upload is refused.")
    return free


def _check_remotes(config_file: str | None, owner: Identity | None) -> tuple[list[CheckResult], list[str] | None]:
    """What the worker says of each remote, and the names of all instances; None where those are not all known."""
    try:
        done = _ask_worker(config_file, owner)
    except OSError as error:
        return [CheckResult("worker", False, str(error), "See whether the worker's user may run this program.")], None
    told = [json.loads(line) for line in done.stdout.splitlines()]
    results = [CheckResult(*result) for *result, _ in told]
    names = [names for *_, names in told]
    if done.returncode:
        said = "; ".join(done.stderr.splitlines())
        results.append(CheckResult("worker", False, said or f"exit code {done.returncode}"))
    return results, None if done.returncode or None in names else [name for some in names for name in some]


def _ask_worker(config_file: str | None, owner: Identity | None) -> "subprocess.CompletedProcess[str]":
    """Ask the worker's own program, as the worker's user where root asks: only it may reach Incus. Raises OSError."""
    command = python("worker.check", *(["--config", config_file] if config_file else []))
    with _credentials() as (environment, keys):
        run = partial(subprocess.run, command, capture_output=True, text=True, timeout=120, check=False,
                      env=environment, pass_fds=keys)
        return run() if owner is None else run(user=owner.uid, group=owner.gid, extra_groups=owner.groups)


@contextmanager
def _credentials() -> Iterator[tuple[dict[str, str], list[int]]]:
    """The environment, with the keys of remote servers as systemd hands them to a worker if this user may read them.

    The keys themselves are in memory, behind descriptors that the program has to inherit.
    """
    if configuration.CREDENTIALS in os.environ or not os.access(INSTALLED_CREDENTIALS, os.R_OK | os.X_OK):
        yield dict(os.environ), []
        return
    with ExitStack() as held:
        directory = held.enter_context(tempfile.TemporaryDirectory())
        os.chmod(directory, 0o711)
        keys = []
        for name in os.listdir(INSTALLED_CREDENTIALS):
            key = held.enter_context(os.fdopen(os.memfd_create(name), "wb", buffering=0))
            key.write((INSTALLED_CREDENTIALS / name).read_bytes())
            os.symlink(f"/proc/self/fd/{key.fileno()}", os.path.join(directory, f"remotes_{name}"))
            keys.append(key.fileno())
        yield {**os.environ, configuration.CREDENTIALS: directory}, keys
