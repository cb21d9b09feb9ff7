"""The installed service: its two users share a state, do not trust each other, and get no power over root."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from daemon.model.upload import Destination
from daemon.partials import Plan, open_partials
from daemon.spool import open_spool
from daemon.state.layout import Layout
from tests.support import version_1
from tests.support.command import Done, incus_courier
from tests.support.depot import an_upload
from tests.support.foreign import plant
from tests.support.identity import User
from tests.support.plants import PLANTS, Plant
from tests.support.service import Service
from tests.support.two_users import API, WORKER, installed, loosen, owners, tidy
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.slow]

#: What the API's user may plant. What is opened in the same way as another is tried by `make test-full` alone.
_PLANTED = [pytest.param(thing, id=name, marks=[] if name in {"closed", "fifo"} else pytest.mark.full)
            for name, thing in PLANTS.items()]
#: What root may ask of a state; the others read it as `status` does.
_ASKED = [["status"], *(pytest.param(words, marks=pytest.mark.full) for words in (
    ["tasks", "list"], ["tasks", "retry", "--state", "failed", "--no-wait"], ["check"], ["fsck"]))]
#: The id of an upload that nobody made.
STRAY_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture
def service() -> Iterator[Service]:
    """A service of two users; nothing runs yet."""
    with installed() as made:
        yield made


def command(service: Service, *words: str) -> Done:
    """A command that root gives."""
    return incus_courier(*words, cwd=Path("/"), INCUS_COURIER_CONFIG=str(service.config))


def upload(service: Service, number: int) -> None:
    """Upload one of some files to one of some instances."""
    answer = service.client.put(f"i{number % 4}", f"/f{number}", b"%d" % number)
    assert answer is not None
    assert answer.status == 202


def leave_waiting(service: Service) -> None:
    """Leave eight uploads in a queue that both users have used; nothing runs then."""
    service.start()
    service.kill("worker-0", "worker-1")
    for number in range(8):
        upload(service, number)
    service.kill()


def wait_delivered(service: Service, numbers: range) -> None:
    """Wait until these files are where they belong, and nothing is left in the spool."""
    eventually(lambda: all(service.delivered(f"i{number % 4}", f"/f{number}") == b"%d" % number for number in numbers)
               and not service.spooled(), what="the deliveries")


def nothing_is_roots(service: Service) -> bool:
    """True when root has made nothing in the state."""
    made = {path for path, uid in owners(service.layout.directory).items() if uid == 0}
    return made == {"spool"}


def test_two_users_deliver_and_each_removes_what_the_other_made(service: Service) -> None:
    """The API may start first: it waits until a worker has made the queue. The worker unlinks the spooled files."""
    service.begin("api")
    eventually(lambda: service.events("api.waiting"), what="the API waits")
    service.start()
    for number in range(20):
        upload(service, number)
    wait_delivered(service, range(20))
    assert nothing_is_roots(service)
    assert not service.mistakes()


@pytest.mark.parametrize("last", ["api", "worker"])
def test_two_users_go_on_after_the_other_has_removed_the_log(service: Service, last: str) -> None:
    """Who closes a database last removes its log, whoever made it; both find it gone and go on."""
    service.start()
    upload(service, 0)
    wait_delivered(service, range(1))
    workers = tuple(name for name in service.processes if name != "api")
    for names in ((workers, ("api",)) if last == "api" else (("api",), workers)):
        service.stop(*names)
    assert not any(service.layout.log(shard).exists() for shard in range(2))
    service.start()
    upload(service, 1)
    wait_delivered(service, range(2))


def test_worker_rebuilds_what_the_api_has_destroyed(service: Service) -> None:
    """Databases that became links, or are gone, are set aside, and every upload gets its row again."""
    leave_waiting(service)
    with API.acting():
        service.layout.log(0).unlink()
        service.layout.log(0).symlink_to("/dev/zero")
        service.layout.database(1).unlink()
        service.layout.database(1).symlink_to(service.config)
    before = service.config.read_text()
    service.start()
    wait_delivered(service, range(8))
    assert service.config.read_text() == before


def test_api_goes_on_in_the_queue_that_the_worker_made_anew(service: Service) -> None:
    """Only the worker may make a shard's directory: an API that runs finds the new one, and loses nothing meanwhile."""
    service.start()
    service.kill("worker-0", "worker-1")
    for number in range(8):
        upload(service, number)
    for shard in range(2):
        # Pages that are in the log are read from there, and these may be all of them.
        for file in (service.layout.database(shard), service.layout.log(shard)):
            file.write_bytes(os.urandom(file.stat().st_size))
    service.start()

    def is_taken() -> bool:
        answer = service.client.put("i0", "/f8", b"8")
        return answer is not None and answer.status == 202

    eventually(is_taken, what="an upload is taken")
    wait_delivered(service, range(9))
    assert len(list(service.layout.lost_found.iterdir())) >= 2


def test_number_of_shards_changes_with_two_users(service: Service) -> None:
    """The worker moves the rows, and removes the directory of a shard that the API has used."""
    leave_waiting(service)
    with API.acting():
        PLANTS["directory"](service.layout.shard(1) / "planted")
    service.settings["queue"]["shards"] = service.shards = 1
    service.write_config()
    service.start()
    wait_delivered(service, range(8))
    assert not service.layout.shard(1).exists()


@pytest.mark.parametrize("suffixes", [("", "-journal"), pytest.param(("-wal", "-shm"), marks=pytest.mark.full)])
@pytest.mark.parametrize("thing", _PLANTED)
def test_queue_is_made_anew_where_the_api_has_put_something_else_for_a_file_of_a_database(
    service: Service, thing: Plant, suffixes: tuple[str, str],
) -> None:
    """Nobody waits for what SQLite would open, and no worker ends again and again: commands say it, workers rebuild."""
    leave_waiting(service)
    with API.acting():
        for shard, suffix in enumerate(suffixes):
            file = service.layout.database(shard).with_name(f"data.db{suffix}")
            file.unlink(missing_ok=True)
            thing(file)
    assert command(service, "status").out.count("cannot be read") == 2
    assert command(service, "fsck").out.count("queue_damaged") == 2
    service.start()
    wait_delivered(service, range(8))


def places(layout: Layout) -> list[Path]:
    """The directories of the layout, and of a queue in use."""
    return [layout.spool, layout.bucket(0), layout.bucket(255), layout.queue, layout.shard(0), layout.locks,
            layout.bells, layout.activities, layout.lost_found, layout.access, layout.shards_file, layout.lock(0), layout.append_lock, layout.bell(0)]


@pytest.mark.parametrize("user", [API, WORKER], ids=["api", "worker"])
def test_user_cannot_rename_or_replace_what_the_layout_is_made_of(service: Service, user: User) -> None:
    """No link can stand where root, or the other user, expects a directory. What the worker makes, it may rename."""
    service.start()
    service.stop()
    layout = service.layout
    for place in places(layout):
        own = user is WORKER and place.parent in {layout.queue, layout.locks, layout.bells, layout.activities}
        assert user.may(partial(place.rename, place.with_name("moved"))) is own, place
        if own:
            place.with_name("moved").rename(place)
    for directory in (layout.directory, layout.spool, *((layout.queue, layout.locks, layout.bells, layout.activities) if user is API else ())):
        assert not user.may(partial((directory / "planted").symlink_to, "/"))
        assert not user.may(partial(directory.chmod, 0o777))
    # What is kept about access is the API's alone.
    kept = layout.access / "kept"
    assert user.may(kept.touch) is (user is API)
    assert user.may(partial(os.listdir, layout.access)) is (user is API)


def status(path: Path) -> tuple[int, ...]:
    """All that a change would change."""
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_uid, found.st_nlink, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def plant_wherever_the_api_can(service: Service, target: Path) -> None:
    """Put links to `target` wherever the API's user may, under names that are opened."""
    layout = service.layout
    names = {"data.db", "data.db-wal", "data.db-shm", "reserve", "in-use", "damaged", "suspect", "shards", "append", "shard-00"}
    directories = [path for path in (layout.directory, *layout.directory.rglob("*")) if path.is_dir()]
    with API.acting():
        for path in directories:
            for name in names if os.access(path, os.W_OK, effective_ids=True) else ():
                (path / name).unlink(missing_ok=True)
                (path / name).symlink_to(target)


@pytest.mark.parametrize("words", [*_ASKED, ["fsck", "--repair"]])
def test_command_of_root_follows_no_link_of_a_front_door_that_was_taken_over(
    service: Service, tmp_path: Path, words: list[str],
) -> None:
    """Whatever the API's user plants, root's file stays as it is, and root makes nothing in the state."""
    service.start()
    for number in range(4):
        upload(service, number)
    service.stop()
    roots = tmp_path / "roots"
    roots.mkdir(mode=0o700)
    precious = roots / "precious"
    precious.write_text("precious")
    before = status(precious)
    plant_wherever_the_api_can(service, precious)
    done = command(service, *words)
    assert "Traceback" not in done.err, done.err
    assert precious.read_text() == "precious"
    assert status(precious) == before
    assert [path.name for path in roots.iterdir()] == ["precious"]
    assert nothing_is_roots(service)


@pytest.mark.parametrize("words", _ASKED)
@pytest.mark.parametrize("what", ["view in the place of a table", "text as large as a disk"])
def test_command_of_root_ends_whatever_a_front_door_that_was_taken_over_wrote_into_a_database(
    service: Service, words: list[str], what: str,
) -> None:
    """A question to it would never end and take all memory: the database is refused, and said to be damaged."""
    leave_waiting(service)
    with API.acting():
        plant(service.layout.database(0), what)
    done = command(service, *words)
    assert "Traceback" not in done.err, done.err
    assert done.code == 1
    assert "this program has not made the" in done.out + done.err or "too big" in done.out + done.err
    assert nothing_is_roots(service)


@pytest.mark.parametrize("repaired", [pytest.param(True, marks=pytest.mark.full), False])
def test_nothing_that_the_api_wrote_into_a_database_outlives_the_next_start(service: Service, repaired: bool) -> None:
    """A trigger could say of each upload that it is delivered, and its bytes would go; a view could never end."""
    leave_waiting(service)
    with API.acting():
        plant(service.layout.database(0), "trigger")
        plant(service.layout.database(1), "view in the place of a table")
    if repaired:
        assert command(service, "fsck", "--repair").code == 0
    service.start()
    for number in range(8, 12):
        upload(service, number)
    wait_delivered(service, range(12))
    assert command(service, "fsck").code == 0


@pytest.mark.full
def test_command_of_root_does_not_wait_for_ever_for_a_lock_that_the_api_holds(service: Service) -> None:
    """It says which lock it is."""
    leave_waiting(service)
    with API.acting():
        held = os.open(service.layout.schema_lock, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    done = command(service, "status")
    os.close(held)
    assert done.code == 1
    assert f"Another process holds {service.layout.schema_lock}" in done.out


def plant_names(service: Service, thing: Plant) -> None:
    """Put something of the API's user wherever it may, under names that the service uses, or that nobody uses."""
    layout = service.layout
    stray = [layout.bucket(bucket) / name for bucket in (0, 1) for name in ("stray", STRAY_ID)]
    own = [layout.shard(shard) / name for shard in range(service.shards)
           for name in ("in-use", "suspect", "reserve", "reserve-1")]
    with API.acting():
        for path in (*stray, *own):
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
                thing(path)


@pytest.mark.parametrize("thing", _PLANTED)
def test_service_works_around_what_a_front_door_that_was_taken_over_has_planted(service: Service, thing: Plant) -> None:
    """Whatever has a name that the service uses, all is delivered, and each process ends and begins in order."""
    leave_waiting(service)
    plant_names(service, thing)
    service.start()
    eventually(lambda: all(service.delivered(f"i{number % 4}", f"/f{number}") for number in range(8)), what="deliveries")
    plant_names(service, thing)
    upload(service, 8)
    eventually(lambda: service.delivered("i0", "/f8") == b"8", what="a delivery among what was planted")
    service.stop()
    service.start()
    service.stop()
    assert not service.mistakes()


@pytest.mark.parametrize("thing", _PLANTED)
def test_repair_of_root_goes_on_around_what_was_planted(service: Service, thing: Plant) -> None:
    """What can be moved is, what cannot is said, and every upload of every shard gets its row."""
    leave_waiting(service)
    for shard in range(service.shards):
        service.layout.database(shard).unlink()
    plant_names(service, thing)
    first, again = (command(service, "fsck", "--repair") for _ in range(2))
    assert first.out.count("row_missing") == 8, first
    assert first.out.count("name_taken") == (0 if thing is PLANTS["closed"] else 8), first
    assert "Traceback" not in first.err + again.err
    left = again.out.count("file_stray") + again.out.count("file_damaged")
    assert (again.code, left) == ((1, 4) if thing is PLANTS["directory"] else (0, 0)), again
    service.start()
    eventually(lambda: all(service.delivered(f"i{number % 4}", f"/f{number}") for number in range(8)), what="deliveries")


def test_bucket_that_the_api_has_closed_holds_up_no_other(service: Service) -> None:
    """The worker starts, and delivers what is in the others; it delivers the rest when it is open again."""
    leave_waiting(service)
    closed = Destination("local", "default", "i0", "/").bucket
    with API.acting():
        service.layout.bucket(closed).chmod(0o700)
    for shard in range(service.shards):
        service.layout.database(shard).unlink()
    service.begin("worker-0")
    service.begin("worker-1")
    eventually(lambda: all(service.delivered(f"i{number % 4}", f"/f{number}") for number in range(8) if number % 4),
               what="the deliveries from other buckets")
    assert command(service, "fsck").out.count("bucket_unreadable") == 1
    service.stop()
    with API.acting():
        service.layout.bucket(closed).chmod(0o2770)
    service.start()
    wait_delivered(service, range(8))


def test_repair_of_root_makes_a_queue_that_both_users_can_use(service: Service) -> None:
    """Root repairs as the worker's user: the service goes on with what it made."""
    leave_waiting(service)
    for shard in range(2):
        service.layout.database(shard).write_bytes(b"no database")
    assert command(service, "fsck", "--repair").code == 0
    assert nothing_is_roots(service)
    service.start()
    wait_delivered(service, range(8))


@pytest.mark.parametrize("words", [["status"], ["tasks", "list"], ["fsck", "--repair"], ["check"]])
def test_root_refuses_a_state_that_its_users_can_rearrange(service: Service, tmp_path: Path, words: list[str]) -> None:
    """As older versions made it: a directory of root's was anybody's to replace. Root says how to mend it."""
    loosen(service.layout.directory)
    with API.acting():
        service.layout.queue.rename(service.layout.directory / "moved")
        service.layout.queue.symlink_to(tmp_path)
    done = command(service, *words)
    assert done.code == 1
    assert "systemd-tmpfiles --create incus-courier.conf" in done.out + done.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("module", ["api", "worker", "serve"])
def test_root_refuses_to_be_the_service_of_two_users(service: Service, module: str) -> None:
    """What root made there would be closed to them, and what they made there would be open to root."""
    done = command(service, module, *(["--shard", "0"] if module == "worker" else []))
    assert done.code == 1
    assert "root does not work in it" in done.err


def test_queue_of_an_older_version_is_brought_up_to_date_by_its_workers(service: Service) -> None:
    """What either user had made is in it, and what nobody needs any more goes."""
    with WORKER.acting():
        tasks = version_1.build(service.layout.directory, service.shards)
    os.chown(service.layout.common_keys, API.uid, API.gid)
    for path in service.layout.queue.rglob("*"):
        path.chmod(0o2770 if path.is_dir() else 0o660)
    service.start()
    wanted = {task.upload.task_id: task.becomes for task in tasks}
    eventually(lambda: {task.task_id: task.state for task in service.tasks()} == wanted, what="the old tasks' ends")
    assert not service.layout.common_keys.exists()


def test_state_of_an_older_version_is_kept_and_made_safe(service: Service) -> None:
    """Both users could rename everything; systemd-tmpfiles closes that, and all that was accepted is delivered."""
    leave_waiting(service)
    loosen(service.layout.directory)
    shutil.rmtree(service.layout.bucket(7))
    tidy(service.layout.directory)
    service.start()
    wait_delivered(service, range(8))
    assert command(service, "fsck").code == 0


def test_worker_counts_resumable_uploads_and_takes_nothing_from_them(service: Service) -> None:
    """Their bytes are the API's alone until they are whole; then the worker reads them where all uploads are."""
    layout, upload = service.layout, an_upload("/r", b"hello")
    plan = Plan(
        destination=upload.destination, display_name="", mode=None, uid=None, gid=None, mkdirs=None, idempotency_key=None,
        digests=frozenset(), owner="anonymous", metadata="", created_at=1.0)
    with API.acting():
        spool = open_spool(layout)
        partials = open_partials(Layout(layout.directory), spool)
        upload_id = partials.create(plan, 5)
        turn = partials.want(upload_id)
        assert turn is not None
        partial = turn.take()
        assert partial is not None
        partial.store([b"hello"])
        partial.keep(2.0)
    bytes_of = layout.partials / upload_id
    assert not WORKER.may(lambda: bytes_of.open("rb"))
    assert not WORKER.may(lambda: (layout.partials / f"{upload_id}.head").open("r+b"))
    assert not WORKER.may(bytes_of.unlink)
    assert not WORKER.may((layout.partials / "planted").touch)
    done = command(service, "status", "--json")
    assert (done.json[0]["partials"]["number"], done.json[0]["partials"]["size_bytes"]) == (1, 5)
    with API.acting():
        partial.choose(upload)
        partial.incoming().seal(upload).release()
        partial.release()
        spool.close()
        partials.close()
    spooled = layout.bucket(upload.destination.bucket) / upload.task_id
    assert WORKER.may(lambda: spooled.open("r+b").close())
    assert WORKER.may(spooled.unlink)
