"""What `incus-courier check` concludes about the machine. Pure: `daemon.cli.machine_facts` gathers what is known."""

import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from daemon.cli.check_result import CheckResult, error, warning
from daemon.model.glob import name_matches

TARGET: Final = "incus-courier.target"
API: Final = "incus-courier-api.service"
API_SOCKET: Final = "incus-courier-api.socket"
WORKER: Final = "incus-courier-worker@"
SENDER: Final = "incus-courier-sender.service"
SENDER_SOCKET: Final = "incus-courier-sender.socket"
#: What need not run: a socket starts these, and nobody misses the sender's without webhooks.
_AT_REST: Final = frozenset({API, SENDER, SENDER_SOCKET})
#: What the installed services have, as systemd shows it. Whatever differs comes from a drop-in.
SANDBOX: Final[Mapping[str, str]] = {
    "ProtectSystem": "strict", "ProtectHome": "yes", "NoNewPrivileges": "yes", "PrivateTmp": "yes",
    "PrivateDevices": "yes", "PrivateMounts": "yes", "LockPersonality": "yes", "MemoryDenyWriteExecute": "yes"}
#: Filesystems on other machines, where SQLite's log and the locks do not hold.
NETWORK_KINDS: Final = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "afs", "lustre", "ocfs2", "gfs2",
    "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone"})
MEMORY_KINDS: Final = frozenset({"tmpfs", "ramfs"})
#: Fewer free inodes than that are told of: each upload needs one.
FEW_INODES: Final = 10_000
#: A clock may differ by so much from that of another start of the machine.
CLOCK_SLACK_S: Final = 5.0
_RELOAD: Final = f"systemctl daemon-reload && systemctl restart {TARGET}"
_HOMES: Final = ("/home", "/root", "/run/user")


@dataclass(frozen=True)
class Unit:
    """A unit as systemd has it."""

    name: str
    load: str = "loaded"
    active: str = "active"
    enabled: str = "enabled"
    needs_reload: bool = False
    drop_ins: tuple[str, ...] = ()
    #: Other properties, as systemd shows them.
    shown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Owned:
    """A file or directory, and whose it is. `mode` has its permission bits."""

    path: str
    mode: int
    user: str
    group: str


@dataclass(frozen=True)
class StatePlace:
    """Where the state is."""

    path: str
    kind: str
    inodes: int
    free_inodes: int


def units(found: Sequence[Unit]) -> Iterator[CheckResult]:
    """How the units stand: one line if all is well."""
    loaded = [unit for unit in found if unit.load == "loaded"]
    told = [finding for unit in loaded for finding in _unit(unit)]
    yield from told
    if loaded and not told:
        yield CheckResult("units", True, ", ".join(unit.name for unit in loaded))


def _unit(unit: Unit) -> Iterator[CheckResult]:
    what = f"unit {unit.name}"
    if unit.active == "failed":
        yield error(what, "failed", "What it does is not done.",
                    f"journalctl -n 20 -u {unit.name}; systemctl restart {unit.name}")
    elif unit.active == "inactive" and unit.name not in _AT_REST:
        yield warning(what, "does not run", "Uploads are not taken, or not delivered.", f"systemctl start {TARGET}")
    if unit.name == TARGET and unit.enabled != "enabled":
        yield warning(what, unit.enabled or "not enabled", "Nothing runs after the next boot.",
                      f"systemctl enable {TARGET}")
    if unit.needs_reload:
        yield warning(what, "its file, or a drop-in, is newer than what systemd has read",
                      "The service runs as the older one says.", _RELOAD)
    weak = [f"{name}={unit.shown[name]}" for name, value in SANDBOX.items() if unit.shown.get(name, value) != value]
    # Sockets have these, too, for commands that they do not have.
    if weak and unit.name.endswith(".service"):
        yield warning(what, f"{', '.join(weak)}, by {', '.join(unit.drop_ins) or 'its file'}",
                      "A break-in gets further than it would.", f"systemctl revert {unit.name} && {_RELOAD}")


def sandbox(
    found: Sequence[Unit], *, state: str, files: Mapping[str, Sequence[str]], far: Sequence[str],
    listen: Sequence[str],
) -> Iterator[CheckResult]:
    """Whether the services may do what the configuration asks for.

    `files` are those that a unit reads itself, by the beginning of its name; `far` are remotes by https; `listen` are
    the addresses, of which those of IP are the API's own unless its socket unit opens them.
    """
    opened = {part.rpartition(" (")[0] for unit in found if unit.name == API_SOCKET
              for part in unit.shown.get("Listen", "").split("\n")}
    for unit in found:
        is_api, is_worker = unit.name == API, unit.name.startswith(WORKER)
        if unit.load != "loaded" or not (is_api or is_worker):
            continue
        what = f"sandbox of {unit.name}"
        writable = [path.lstrip("-+") for path in unit.shown.get("ReadWritePaths", "").split()]
        if unit.shown.get("ProtectSystem") == "strict" and not any(_is_in(state, path) for path in writable):
            yield error(what, f"state.directory {state} is not in ReadWritePaths=", "The service cannot write there.",
                        _edit(API if is_api else f"{WORKER}.service", f"ReadWritePaths={state}"))
        if unit.shown.get("ProtectHome") == "yes":
            for path in files.get(API if is_api else WORKER, ()):
                if any(_is_in(path, home) for home in _HOMES):
                    yield error(what, f"ProtectHome=yes hides {path}", "The service cannot read it.",
                                f"Put it into /etc/incus-courier: install -m 0640 {path} /etc/incus-courier/")
        if unit.shown.get("PrivateNetwork") == "yes":
            yield from _without_network(unit.name, what, far if is_worker else (),
                                        [at for at in listen if is_api and _needs_network(at, opened)])


def _without_network(unit: str, what: str, far: Sequence[str], listen: Sequence[str]) -> Iterator[CheckResult]:
    if far:
        yield error(what, f"PrivateNetwork=yes, and {', '.join(far)} is reached by https",
                    "Nothing is delivered there.", _example("remote-server.conf", f"{WORKER}.service"))
    if listen:
        yield error(what, f"PrivateNetwork=yes, and the API is to open {', '.join(listen)} itself",
                    "Nobody reaches that address.", _example("tcp-address.conf", unit))


def _needs_network(address: str, opened: set[str]) -> bool:
    plain = address.removeprefix("tls:")
    return not plain.startswith(("unix:", "fd:")) and plain not in opened


def _example(name: str, unit: str) -> str:
    return (f"install -D -m 0644 /usr/share/doc/incus-courier/examples/{name} /etc/systemd/system/{unit}.d/{name}"
            f" && {_RELOAD}")


def _edit(unit: str, line: str) -> str:
    directory = f"/etc/systemd/system/{unit}.d"
    return f"mkdir -p {directory} && printf '[Service]\\n{line}\\n' >{directory}/state.conf && {_RELOAD}"


def _is_in(path: str, directory: str) -> bool:
    return PurePosixPath(path).is_relative_to(directory)


def group(user: str, wanted: str, groups: Sequence[str], why: str, *, needed: bool = True) -> CheckResult:
    """Whether a user is in a group that he needs."""
    what = f"group {wanted}"
    if wanted in groups:
        return CheckResult(what, True, f"{user} is in it")
    tell = error if needed else warning
    return tell(what, f"{user} is not in it", why, f"usermod -aG {wanted} {user}"
                f"{f' && systemctl restart {TARGET}' if needed else ', then log in again'}")


def owners(found: Sequence[Owned], wanted: Sequence[Owned]) -> Iterator[CheckResult]:
    """Whether directories of the state are whose tmpfiles.d says; those that are not there are made at the start."""
    by_path = {owned.path: owned for owned in found}
    wrong = [f"{want.path} is {_shown(have)}, not {_shown(want)}" for want in wanted
             if (have := by_path.get(want.path)) is not None and have != want]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        yield error("ownership", "; ".join(wrong[:3]) + more,
                    "The service refuses to work, or others may read uploads.",
                    "systemd-tmpfiles --create incus-courier.conf")
    elif by_path:
        yield CheckResult("ownership", True, f"{len(by_path)} directories and files are as installed")


def _shown(owned: Owned) -> str:
    return f"{owned.mode:04o} {owned.user}:{owned.group}"


def closed(found: Sequence[Owned], *, secret: bool) -> Iterator[CheckResult]:
    """Whether files that say who may do what can be changed by root alone; with `secret` others may not read either."""
    for owned in found:
        what = f"permissions of {owned.path}"
        if owned.user != "root" or owned.mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield error(what, _shown(owned), "Somebody but root may change what the service does.",
                        f"chown root {owned.path} && chmod go-w {owned.path}")
        if secret and owned.mode & stat.S_IRWXO:
            yield error(what, _shown(owned), "Every user of the machine may read what is in there.",
                        f"chmod o= {owned.path}")


def clock(now: float, newest: float | None, *, synchronised: bool | None) -> CheckResult:
    """Whether the clock goes right. `newest` is when the newest upload was accepted; None where nothing is known."""
    if newest is not None and now < newest - CLOCK_SLACK_S:
        return warning("clock", f"set back by {newest - now:.0f} s behind the newest upload",
                       "Until it is there again, newer uploads may be taken for older ones.",
                       "timedatectl set-ntp true; then compare with: date")
    if synchronised is False:
        return warning("clock", "not synchronised", "Tokens, certificates and times of tasks go by it.",
                       "apt-get install systemd-timesyncd && timedatectl set-ntp true; for a container, on its host")
    return CheckResult("clock", True, "synchronised" if synchronised else "not behind the newest upload")


def room(found: StatePlace) -> Iterator[CheckResult]:
    """Whether the state is on a filesystem that keeps its promises, with inodes left."""
    told = False
    if found.kind in NETWORK_KINDS:
        told = True
        yield error("filesystem", f"{found.path} is on {found.kind}, on another machine",
                    "SQLite's log and the service's locks do not hold there: uploads may be lost.",
                    "Set state.directory to a disk of this machine.")
    elif found.kind in MEMORY_KINDS:
        told = True
        yield warning("filesystem", f"{found.path} is on {found.kind}, in memory",
                      "All uploads are lost when the machine ends.", "Set state.directory to a disk.")
    if found.inodes and found.free_inodes < FEW_INODES:
        told = True
        yield warning("inodes", f"{found.free_inodes} of {found.inodes} are free on {found.path}",
                      "Each upload needs one.", f"df -i {found.path}; then remove small files, or move the state.")
    if not told:
        left = f", {found.free_inodes} inodes free" if found.inodes else ""
        yield CheckResult("filesystem", True, f"{found.kind or 'unknown'}{left}")


def kernel(release: str, *, renames: bool) -> CheckResult:
    """Whether the kernel can rename without replacing (O_TMPFILE is tried in the spool itself)."""
    if not renames:
        return error("kernel", f"{release}: no renameat2", "Nothing can be set aside safely.",
                     "Use a kernel from 3.15 on, and a container manager whose filter allows it.")
    return CheckResult("kernel", True, release)


def unreachable_remotes(tokens: Mapping[str, Sequence[str] | None], known: Sequence[str]) -> Iterator[CheckResult]:
    """Tokens, by name, whose rights are for remotes alone that are not configured. Globs are left alone."""
    for name, remotes in tokens.items():
        gone = [remote for remote in remotes or () if remote not in known and not set(remote) & set("*?[")]
        if remotes and len(gone) == len(remotes):
            yield warning(f"token {name}", f"is for {', '.join(gone)} alone, which the configuration has not",
                          "Who shows it can do nothing.", f"incus-courier token revoke {name}")


def unknown_instances(tokens: Mapping[str, Sequence[str] | None], known: Sequence[str]) -> Iterator[CheckResult]:
    """Tokens, by name, that name instances of which there is none; `known` are those of all remotes."""
    for token, globs in tokens.items():
        gone = [glob for glob in globs or () if not any(name_matches(glob, name) for name in known)]
        if gone:
            yield warning(f"token {token}", f"names {', '.join(gone)}, and there is no such instance",
                          "What is sent there is not delivered until there is one.",
                          f"incus list; if it is a slip, make the token anew: incus-courier token revoke {token}")


@dataclass(frozen=True)
class ProxyAnswer:
    """What came back through a proxy for the beginning of an upload."""

    #: None when nothing came in time.
    status: int | None = None
    #: True when it is the service's own.
    ours: bool = False
    #: Why nothing could be asked.
    unreachable: str | None = None


def proxy(origin: str, answer: ProxyAnswer) -> CheckResult:
    """Whether a proxy hands a request on while its body comes, whatever its size."""
    what = f"proxy {origin}"
    if answer.unreachable is not None:
        return warning(what, f"not reached from here: {answer.unreachable}",
                       "It cannot be tried whether it hands bodies on as they come.",
                       f"Try where clients are: curl -T FILE {origin}/v1/instances/NAME/files/PATH")
    if answer.ours:
        return CheckResult(what, True, "hands requests on before their body is there")
    if answer.status is None:
        return warning(what, "waits for the whole body before it hands a request on",
                       "Uploads begin late, need its disk twice, and are not resumed where they broke off.",
                       "nginx: proxy_request_buffering off; Caddy: no request_buffers (docs/resumable.md)")
    match answer.status:
        case 413:
            return error(what, "refuses bodies of limits.max_upload_bytes itself", "Large uploads are cut off.",
                         "nginx: client_max_body_size 0; (docs/resumable.md)")
        case 401 | 407:
            return CheckResult(what, True, "asks who it is before it hands anything on, so it was not tried")
        case 404 | 405:
            return warning(what, "has nothing of the service at /v1/",
                           "Only if all clients are told another path is that as it should be.",
                           "See where the proxy sends requests to (docs/install.md, A proxy in front)")
    return warning(what, f"answers {answer.status} in the place of the service", "Uploads do not get through.",
                   "See the proxy's log, and where it sends requests to.")
