import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from daemon.cli import status, task_commands
from daemon.cli.save import save
from daemon.errors import Undelivered
from daemon.model.task import Attempt, State
from daemon.model.text import is_plain
from daemon.model.upload import Upload
from tests.support import rows
from tests.support.command import Done, incus_courier
from tests.support.depot import Depot, new_id
from tests.support.service import Service
from tests.support.shell import Shell
from tests.support.waiting import PATIENCE_S, eventually


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service whose worker is not started yet."""
    with Service(tmp_path, {"delivery": {"mkdirs": False}}) as made:
        yield made


@pytest.fixture
def depot(service: Service) -> Iterator[Depot]:
    """The service's state, to put uploads into."""
    with Depot(service.layout.directory) as made:
        yield made


@pytest.fixture
def shell(service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command line; it waits for a worker's answer for as long as a busy machine may need."""
    monkeypatch.setattr(task_commands, "PATIENCE_S", PATIENCE_S)
    return Shell(service.config, monkeypatch, capsys)


def start_worker(service: Service) -> None:
    """Start the worker of shard 0 and wait until it serves."""
    service.begin("worker-0")
    eventually(lambda: service.events("worker.started"), what="the worker's start")


# --- looking -----------------------------------------------------------------------------------------------


def test_list_shows_tasks_newest_first_as_a_table(depot: Depot, shell: Shell) -> None:
    """One line for each task, under the names of the columns."""
    older, newer = depot.accept("/a"), depot.accept("/b")
    done = shell("tasks", "list")
    lines = done.out.splitlines()
    assert done.code == 0
    assert lines[0].split() == ["id", "state", "instance", "path", "bytes", "age", "tries", "error"]
    assert [line.split()[:5] for line in lines[1:]] == [
        [newer.task_id, "queued", "c1", "/b", "5"], [older.task_id, "queued", "c1", "/a", "5"]]


def test_list_of_nothing_is_empty(depot: Depot, shell: Shell) -> None:
    """Where there are no tasks nothing is printed, and that is no failure."""
    assert shell("tasks", "list") == Done(0, "", "")


def test_list_prints_json_lines_with_the_same_names_as_the_api(depot: Depot, shell: Shell) -> None:
    """A program reads one JSON object a line."""
    upload = depot.accept("/a", mode=0o640, uid=7, display_name="a b", client="token:ci")
    found = shell("tasks", "list", "--json").json
    assert len(found) == 1
    assert found[0]["id"] == upload.task_id
    assert (found[0]["mode"], found[0]["uid"], found[0]["gid"], found[0]["name"]) == ("0640", 7, None, "a b")
    assert (found[0]["client"], found[0]["error"]) == ("token:ci", None)


def test_list_is_paged_with_a_hint_for_the_next_page(depot: Depot, shell: Shell) -> None:
    """Following the hints shows each task once, and the last page has no hint."""
    uploads = [depot.accept(f"/{number}") for number in range(5)]
    seen: list[str] = []
    after: list[str] = []
    while True:
        done = shell("tasks", "list", "--limit", "2", "--json", *after)
        seen += [task["id"] for task in done.json]
        if "There are more: add" not in done.err:
            break
        after = done.err.split("add ")[1].split()
    assert seen == [upload.task_id for upload in reversed(uploads)]


def test_list_chooses_by_instance_state_and_age(depot: Depot, shell: Shell) -> None:
    """Each option narrows the list, and together they narrow it further."""
    failed = depot.failed("/a", instance="c1")
    other = depot.accept("/b", instance="c2")
    foreign = depot.accept("/c", instance="c1", remote="eu", project="web", client="token:ci")

    def ids(*words: str) -> set[str]:
        return {task["id"] for task in shell("tasks", "list", "--json", *words).json}

    assert ids("--instance", "c1") == {failed.task_id}
    assert ids("--instance", "eu:web/c1") == {foreign.task_id}
    assert ids("--state", "queued") == {other.task_id, foreign.task_id}
    assert ids("--state", "failed,held", "--state", "queued", "--instance", "c1") == {failed.task_id}
    assert ids("--client", "token:ci") == ids("--client", "token:ci", "--state", "queued") == {foreign.task_id}
    assert ids("--client", "token:ci", "--instance", "c1") == ids("--client", "token:other") == set()
    assert ids("--older-than", "1h") == set()
    assert ids("--older-than", "0s") == {failed.task_id, other.task_id, foreign.task_id}


def test_list_shows_hostile_names_as_text(depot: Depot, shell: Shell) -> None:
    """Nothing in a path can colour the terminal, or look like a line of its own."""
    depot.accept("/[red]a[/red]\u202e b")
    out = shell("tasks", "list").out
    assert "[red]a[/red]" in out
    assert "\u202e" not in out


def test_show_says_what_is_wrong_and_what_to_do(depot: Depot, shell: Shell) -> None:
    """A dead letter shows its reason and the advice for it."""
    upload = depot.failed()
    done = shell("tasks", "show", upload.task_id)
    assert done.code == 0
    assert "parent_not_found: no such directory" in done.out
    assert "upload with mkdirs=true" in done.out


def test_show_has_the_last_attempts_and_what_became_of_the_file(depot: Depot, shell: Shell) -> None:
    """As JSON, too."""
    upload = depot.accept()
    depot.settle(upload, State.QUEUED, attempt=Attempt(at=1e9, duration_s=2.5, code="stalled", message="no answer"))
    depot.settle(upload, State.DELIVERED, attempt=Attempt(at=1e9 + 9, duration_s=0.5, way="sftp", mode=0o640, uid=7))
    done = shell("tasks", "show", upload.task_id)
    assert "history          2001-09-09T01:46:40.000Z  2.500 s  stalled: no answer\n" in done.out
    assert "                 2001-09-09T01:46:49.000Z  0.500 s  done\n" in done.out
    assert "receipt          delivered at 2001-09-09T01:46:49.000Z, mode 0640, uid 7, way sftp\n" in done.out
    [shown] = shell("tasks", "show", "--json", upload.task_id).json
    assert [attempt["code"] for attempt in shown["history"]] == ["stalled", None]
    assert (shown["receipt"]["mode"], shown["receipt"]["attempts"]) == ("0640", 2)


def test_show_takes_several_ids_and_tells_those_that_are_not_there(depot: Depot, shell: Shell) -> None:
    """The ones that are there are shown; the exit code says that not all were."""
    upload, missing = depot.accept(), new_id()
    done = shell("tasks", "show", "--json", upload.task_id, missing, "web1")
    assert [task["id"] for task in done.json] == [upload.task_id]
    assert done.err == f"{missing}: there is no such task\nweb1: this is not the id of a task\n"
    assert done.code == 1


# --- asking ------------------------------------------------------------------------------------------------


def test_command_is_kept_for_later_when_no_worker_runs(service: Service, depot: Depot, shell: Shell) -> None:
    """What is asked for while the worker is down is done when it comes up."""
    upload = depot.accept()
    done = shell("tasks", "hold", upload.task_id)
    assert done == Done(0, f"{upload.task_id}: asked; no worker runs; it is done when one does\n", "")
    assert depot.state(upload) is State.QUEUED
    start_worker(service)
    eventually(lambda: depot.state(upload) is State.HELD)


def test_command_waits_for_the_workers_answer(service: Service, depot: Depot, shell: Shell) -> None:
    """With a worker the state that the task is in afterwards is printed, for several ids in their order."""
    failed = [depot.failed(f"/missing/{number}") for number in range(2)]
    start_worker(service)
    done = shell("tasks", "delete", *(upload.task_id for upload in failed))
    assert done == Done(0, "".join(f"{upload.task_id}: cancelled\n" for upload in failed), "")
    eventually(lambda: service.spooled() == [])


def test_command_that_is_refused_says_why(service: Service, depot: Depot, shell: Shell) -> None:
    """Wrong states, unknown tasks and what is no id are each told apart, and exit code 1 says that some were refused."""
    upload, missing = depot.failed("/missing/a"), new_id()
    start_worker(service)
    done = shell("tasks", "release", upload.task_id, missing, "web1")
    assert done.code == 1
    assert done.out.splitlines() == [
        f"{upload.task_id}: refused: cannot release a task that is failed",
        f"{missing}: refused: there is no such task", "web1: refused: this is not the id of a task"]


def test_command_reads_ids_from_standard_input(service: Service, depot: Depot, shell: Shell) -> None:
    """`-` stands for the ids on standard input, so that lists can be piped; an id that comes twice counts once."""
    uploads = [depot.failed(f"/missing/{number}") for number in range(3)]
    start_worker(service)
    ids = [upload.task_id for upload in uploads]
    done = shell("tasks", "delete", "--json", "-", stdin="\n".join([*ids, ids[0]]))
    assert [(reply["id"], reply["outcome"], reply["state"]) for reply in done.json] == [
        (task_id, "done", "cancelled") for task_id in ids]


def test_command_by_kind_changes_what_was_there_and_no_more(service: Service, depot: Depot, shell: Shell) -> None:
    """Tasks are chosen by instance, state and age, as they are when the command is given."""
    here = [depot.failed(f"/missing/{number}") for number in range(3)]
    elsewhere = depot.failed("/missing/x", instance="c2")
    assert shell("tasks", "delete", "--instance", "c1", "--state", "failed", "--no-wait").code == 0
    later = depot.failed("/missing/later")
    start_worker(service)
    eventually(lambda: {depot.state(upload) for upload in here} == {State.CANCELLED})
    eventually(lambda: depot.queue.pending_commands() == 0)
    assert {depot.state(elsewhere), depot.state(later)} == {State.FAILED}


def test_command_by_kind_tells_how_many_it_changed(service: Service, depot: Depot, shell: Shell) -> None:
    """The worker's count is printed for each shard."""
    for number in range(3):
        depot.failed(f"/missing/{number}")
    start_worker(service)
    assert shell("tasks", "delete", "--older-than", "0s").out == "shard 0: delete changed 3 tasks\n"
    assert shell("tasks", "delete", "--state", "failed", "--json").json == [
        {"shard": 0, "outcome": "done", "changed": 0, "refused": 0}]


def test_retry_of_an_overtaken_dead_letter_needs_force(service: Service, depot: Depot, shell: Shell) -> None:
    """Older bytes go over newer ones only when a person says so twice."""
    older = depot.failed("/f", b"older")
    newer = depot.accept("/f", b"newer")
    start_worker(service)
    eventually(lambda: depot.state(newer) is State.DELIVERED)
    refused = shell("tasks", "retry", older.task_id)
    assert refused.code == 1
    assert "a newer upload to the same path exists; --force delivers the older bytes over it" in refused.out
    assert service.delivered("c1", "/f") == b"newer"
    assert shell("tasks", "retry", "--force", older.task_id).code == 0
    eventually(lambda: service.delivered("c1", "/f") == b"older")


def test_cancel_and_release_do_what_they_say(service: Service, depot: Depot, shell: Shell) -> None:
    """A held task is delivered once it is released; a cancelled one never is, and its bytes go."""
    released, cancelled = depot.accept("/a"), depot.accept("/b")
    assert shell("tasks", "hold", released.task_id, cancelled.task_id).code == 0
    start_worker(service)
    eventually(lambda: depot.state(cancelled) is State.HELD)
    assert shell("tasks", "cancel", cancelled.task_id).out == f"{cancelled.task_id}: cancelled\n"
    assert shell("tasks", "release", released.task_id).code == 0
    eventually(lambda: service.delivered("c1", "/a") == b"hello")
    eventually(lambda: service.spooled() == [])
    assert service.delivered("c1", "/b") is None


def test_flush_tries_deferred_tasks_of_an_instance_now(service: Service, depot: Depot, shell: Shell) -> None:
    """Tasks that would wait for their time are tried at once; those of other instances still wait."""
    # A task that is due later than any can be was put off before the clock was set back.
    service.settings = {**service.settings, "retry": {"max_delay_s": 3600}}
    service.write_config()
    mine, other = depot.accept("/a"), depot.accept("/b", instance="c2")
    for upload in (mine, other):
        depot.settle(upload, State.DEFERRED, error_code="connection_lost", error_message="", due_at=time.time() + 3000)
    start_worker(service)
    assert shell("tasks", "flush", "--instance", "c1").out == "shard 0: flush changed 1 tasks\n"
    eventually(lambda: depot.state(mine) is State.DELIVERED)
    assert depot.state(other) is State.DEFERRED


def test_delete_takes_finished_tasks_off_the_list(service: Service, depot: Depot, shell: Shell) -> None:
    """A finished task whose bytes are gone is forgotten."""
    upload = depot.accept(client="token:ci")
    start_worker(service)
    eventually(lambda: not depot.task(upload).spooled)
    assert [event["client"] for event in service.events("push.delivered")] == ["token:ci"]
    assert shell("tasks", "delete", upload.task_id).out == f"{upload.task_id}: deleted\n"
    assert depot.queue.find(upload.task_id) is None


def test_command_says_who_asked_in_the_log(service: Service, depot: Depot, shell: Shell) -> None:
    """The log tells later who changed a task."""
    upload = depot.failed("/missing/a", client="token:ci")
    depot.failed("/missing/b", client="token:other")
    start_worker(service)
    assert shell("tasks", "delete", "--client", "token:ci").out == "shard 0: delete changed 1 tasks\n"
    [event] = eventually(lambda: service.events("task.commanded"))
    assert (event["task_id"], event["verb"], event["state"]) == (upload.task_id, "delete", "cancelled")
    assert event["client"] == "token:ci"
    assert event["asked_by"]


def test_damaged_row_refuses_commands_and_stops_nothing(service: Service, depot: Depot, shell: Shell) -> None:
    """A row that cannot be read is told as such, and the worker goes on with the others."""
    damaged, well = depot.failed("/a"), depot.failed("/missing/b")
    rows.damage(depot.queue, damaged.task_id)
    # The worker mends such a row as soon as it comes across it.
    done = shell("tasks", "delete", damaged.task_id, well.task_id)
    assert done.code == 1
    assert f"{damaged.task_id}: refused: its row is damaged" in done.out
    start_worker(service)
    eventually(lambda: depot.state(well) is State.CANCELLED, what="the other's end")


# --- saving ------------------------------------------------------------------------------------------------


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[BinaryIO]:
    """The file that a shell opened for `>FILE`."""
    with (tmp_path / "saved").open("w+b") as file:
        yield file


def test_save_writes_the_bytes_of_a_dead_letter(depot: Depot, service: Service, sink: BinaryIO) -> None:
    """Standard output gets exactly the bytes that were accepted."""
    data = os.urandom(3_000_000)
    upload = depot.failed("/a", data)
    incus_courier("--config", str(service.config), "tasks", "save", upload.task_id, to=sink)
    assert Path(sink.name).read_bytes() == data


def test_save_writes_nothing_of_bytes_that_are_not_those_that_were_accepted(depot: Depot, sink: BinaryIO) -> None:
    """Damaged bytes are not handed out as if they were whole."""
    upload = depot.failed("/a", b"hello")
    with spooled(depot, upload).open("r+b") as file:
        file.write(b"jello")
    with pytest.raises(Undelivered, match="not the bytes that were accepted; nothing was written"):
        save(depot.spool, upload, sink.fileno())
    assert Path(sink.name).read_bytes() == b""


def test_save_fails_when_the_bytes_change_while_they_are_written(
    depot: Depot, sink: BinaryIO, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever may write the spooled file can change it after it was checked; what was written is not taken for it."""
    data = bytes(3_000_000)
    upload = depot.failed("/a", data)
    write = os.write

    def change_then_write(descriptor: int, piece: memoryview) -> int:
        with spooled(depot, upload).open("r+b") as file:
            file.seek(len(data) - 1)
            file.write(b"!")
        return write(descriptor, piece)

    monkeypatch.setattr(os, "write", change_then_write)
    with pytest.raises(Undelivered, match="not the bytes that were accepted; what was written is of no use"):
        save(depot.spool, upload, sink.fileno())


def test_save_says_when_there_is_no_room_for_the_bytes(depot: Depot) -> None:
    """A full disk is told of in words, and fails the command."""
    upload = depot.failed("/a", b"hello")
    with open("/dev/full", "wb") as full, pytest.raises(Undelivered, match="No space left on device") as failed:
        save(depot.spool, upload, full.fileno())
    assert failed.value.kind.exit_status == 1


def test_save_refuses_a_terminal(depot: Depot, service: Service) -> None:
    """What somebody uploaded would otherwise give orders to the terminal of whoever looks."""
    upload = depot.failed("/a", b"\x1b[2J")
    master, slave = os.openpty()
    with os.fdopen(master, "rb", buffering=0) as screen, os.fdopen(slave, "wb", buffering=0) as terminal:
        done = incus_courier("--config", str(service.config), "tasks", "save", upload.task_id, to=terminal)
        os.set_blocking(screen.fileno(), False)
        assert (done.code, "tasks save" in done.err, screen.read()) == (2, True, None)


def test_save_says_so_when_there_is_no_such_task(depot: Depot, service: Service, sink: BinaryIO) -> None:
    """Nothing is written for an id that nobody knows."""
    done = incus_courier("--config", str(service.config), "tasks", "save", new_id(), to=sink)
    assert (done.code, "there is no such task" in done.err, Path(sink.name).read_bytes()) == (1, True, b"")


def spooled(depot: Depot, upload: Upload) -> Path:
    """The file of an upload."""
    return depot.layout.bucket(upload.destination.bucket) / upload.task_id


# --- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "said"), [
    (["tasks", "retry"], "Name tasks by their ids"),
    (["tasks", "retry", new_id(), "--instance", "c1"], "one or the other"),
    (["tasks", "list", "--state", "lost"], "--state lost: there is no such state; the states are queued, pushing"),
    (["tasks", "list", "--older-than", "2 days"], "give a number and a unit, for example 90s, 15m, 2h or 3d"),
    (["tasks", "list", "--instance", "-c1"], "Give [remote:][project/]instance."),
    (["tasks", "list", "--after", "7"], "--after 7: this is not the id of a task"),
    (["tasks", "list", "--limit", "0"], "--limit"),
    (["tasks", "flush"], "--instance"),
    (["tasks", "undo"], "undo"),
])
def test_command_that_cannot_be_understood_ends_with_2(
    depot: Depot, shell: Shell, words: list[str], said: str,
) -> None:
    """What was typed wrongly is named, with what would be right."""
    done = shell(*words)
    assert (done.code, said in done.err) == (2, True), done.err


@pytest.mark.parametrize("words", [["status"], ["tasks", "list"], ["tasks", "retry", new_id()]])
def test_command_makes_no_state_directory(service: Service, shell: Shell, words: list[str]) -> None:
    """A command on a machine, or with a configuration, where the service never ran says so and leaves no trace."""
    done = shell(*words)
    assert done.code == 1
    assert "there is no state of this service" in done.err
    assert not service.layout.directory.exists()


def test_command_waits_for_nobody_while_the_queue_is_moved(depot: Depot, service: Service, shell: Shell) -> None:
    """Under a change of the number of shards nothing is asked for: it could get lost on the way."""
    upload = depot.failed()
    (service.layout.queue / "shards").write_text("1 2\n")
    done = shell("tasks", "retry", upload.task_id)
    assert done.code == 1
    assert "Try again in a moment" in done.err
    assert depot.queue.pending_commands() == 0


@pytest.mark.slow
def test_commands_of_root_leave_the_state_to_its_owner() -> None:
    """Root becomes the state's owner before it opens the state; what it saves is in a file that its shell opened."""
    owner = 65534 if os.getuid() == 0 else os.getuid()
    with tempfile.TemporaryDirectory(prefix="courier-owner-") as name, Service(Path(name)) as service:
        service.directory.chmod(0o711)
        with Depot(service.layout.directory) as depot:
            upload = depot.failed("/a", b"saved")
        for path in (service.layout.directory, *service.layout.directory.rglob("*")):
            os.chown(path, owner, -1)
        saved = service.directory / "saved"
        with saved.open("wb") as sink:
            saved.chmod(0o600)
            for words in (["status"], ["tasks", "delete", upload.task_id], ["tasks", "save", upload.task_id]):
                to = sink if "save" in words else None
                incus_courier(*words, cwd=service.directory, to=to, INCUS_COURIER_CONFIG=str(service.config))
        assert {path.stat().st_uid for path in service.layout.directory.rglob("*")} == {owner}
        assert (saved.read_bytes(), saved.stat().st_uid) == (b"saved", os.getuid())


# --- status ------------------------------------------------------------------------------------------------


def read_status(shell: Shell) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON of `status --json`."""
    done = shell("status", "--json")
    [found] = done.json
    return done.code, found


def test_status_counts_per_shard_and_instance(service: Service, depot: Depot, shell: Shell) -> None:
    """Pending, deferred, held, failed and delivered tasks, the bytes that wait and the oldest age, of each instance."""
    deferred = depot.accept("/a", b"12345")
    depot.settle(deferred, State.DEFERRED, due_at=4e9)
    depot.accept("/b", b"123", created_at=1000.0)
    depot.failed("/c", b"1", instance="c2")
    code, found = read_status(shell)
    assert code == 1
    [shard] = found["shards"]
    counts = {"tasks", "size_bytes", "oldest_age_s"}
    assert set(shard) == {"shard", "worker", "commands", "fault", "instances", "more_instances", *counts}
    assert shard["tasks"] == {"pending": 1, "deferred": 1, "held": 0, "failed": 1, "delivered": 0}
    assert (shard["size_bytes"], shard["more_instances"]) == (9, 0)
    assert (shard["shard"], shard["worker"], shard["commands"], shard["fault"]) == (0, None, 0, None)
    first, second = shard["instances"]
    assert set(first) == {"instance", *counts}
    assert first["instance"] == "local/default/c1"
    assert first["tasks"] == {"pending": 1, "deferred": 1, "held": 0, "failed": 0, "delivered": 0}
    assert first["size_bytes"] == 8
    # Each age is of the moment in which it was read.
    assert min(first["oldest_age_s"], shard["oldest_age_s"]) > 1e9 > second["oldest_age_s"]
    assert second["tasks"]["failed"] == 1
    assert found["problems"] == [
        "shard 0 has no worker", "1 dead letters; see: incus-courier tasks list --state failed"]


def test_status_is_well_when_there_is_nothing_to_do_for_a_person(
    service: Service, depot: Depot, shell: Shell,
) -> None:
    """With a worker for each shard and no dead letters the exit code is 0."""
    start_worker(service)
    code, found = read_status(shell)
    assert (code, found["problems"]) == (0, [])
    assert found["shards"][0]["worker"] == service.processes["worker-0"].pid


def test_status_fails_for_dead_letters_alone(service: Service, depot: Depot, shell: Shell) -> None:
    """A dead letter waits for a person, whether or not the workers run."""
    depot.failed("/missing/a")
    start_worker(service)
    code, found = read_status(shell)
    assert (code, len(found["problems"])) == (1, 1)


def test_status_shows_what_people_asked_for_and_nobody_did(depot: Depot, shell: Shell) -> None:
    """Commands that wait for a worker are counted."""
    upload = depot.failed()
    shell("tasks", "retry", upload.task_id)
    assert read_status(shell)[1]["shards"][0]["commands"] == 1


def test_status_shows_resumable_uploads_that_are_not_finished(service: Service, depot: Depot, shell: Shell) -> None:
    """How many, how many bytes are here, and how long one has been silent; nothing at all where there is none."""
    assert read_status(shell)[1]["partials"] == {"number": 0, "size_bytes": 0, "oldest_age_s": None, "fault": None}
    assert "resumable" not in shell("status").out
    silent = service.layout.partials / ("a" * 22)
    silent.write_bytes(b"12345")
    (service.layout.partials / f"{silent.name}.head").write_bytes(b"the head")
    os.utime(silent, (time.time() - 7200, time.time() - 7200))
    found = read_status(shell)[1]["partials"]
    assert (found["number"], found["size_bytes"]) == (1, 5)
    assert found["oldest_age_s"] >= 7200
    assert "1 resumable uploads are not finished: 5 bytes, one silent for 2" in shell("status").out


def test_status_tells_a_shard_that_cannot_be_read_from_the_others(
    service: Service, depot: Depot, shell: Shell,
) -> None:
    """One damaged database hides nothing of the other shards."""
    (service.layout.queue / "shards").write_text("2\n")
    depot.failed("/a")
    service.layout.make_shard(1)
    service.layout.database(1).write_bytes(b"no database at all" * 1000)
    code, found = read_status(shell)
    assert code == 1
    assert found["shards"][0]["instances"][0]["tasks"]["failed"] == 1
    assert "not a database" in found["shards"][1]["fault"]
    assert any("shard 1 cannot be read" in problem for problem in found["problems"])


@pytest.mark.parametrize("choice", [("--state", "failed"), ("01890a5d-ac96-774b-bcce-b302099a8057",)])
def test_command_says_which_shards_it_could_not_reach(
    service: Service, depot: Depot, shell: Shell, choice: tuple[str, ...],
) -> None:
    """Nobody takes a task for looked after whose shard could not be opened."""
    (service.layout.queue / "shards").write_text("2\n")
    depot.failed("/a")
    service.layout.make_shard(1)
    service.layout.database(1).write_bytes(b"no database at all" * 1000)
    done = shell("tasks", "retry", *choice)
    assert done.code == 1
    assert "shard 1" in done.out
    assert "not a database" in done.out


def test_status_prints_a_table_for_people(depot: Depot, shell: Shell) -> None:
    """The instances with most to do, then the shards; problems stand below, marked."""
    depot.failed("/a", b"12345")
    done = shell("status")
    lines = done.out.splitlines()
    counts = ["pending", "deferred", "held", "failed", "delivered", "bytes", "oldest"]
    assert lines[0].split() == ["shard", "instance", *counts]
    assert lines[1].split()[:8] == ["0", "local/default/c1", "0", "0", "0", "1", "0", "5"]
    assert lines[2] == ""
    assert lines[3].split() == ["shard", "worker", "commands", *counts]
    assert lines[4].split()[:9] == ["0", "none", "0", "0", "0", "0", "1", "0", "5"]
    assert "! shard 0 has no worker" in lines


def test_status_shows_the_instances_with_most_to_do_and_how_many_others_there_are(
    service: Service, depot: Depot, shell: Shell,
) -> None:
    """What it prints is no longer the more instances there are; the totals are of all of them."""
    (service.layout.queue / "shards").write_text("2\n")
    with Depot(service.layout.directory, shard=1) as other:
        for path in ("/a", "/b", "/c"):
            other.accept(path, instance="busy")
    for name in ("a", "a", "b", "c", "d"):
        depot.accept(f"/{new_id()}", b"12", instance=name)
    [found] = shell("status", "--json", "--limit", "2").json
    named = [(shard["shard"], [instance["instance"] for instance in shard["instances"]], shard["more_instances"])
             for shard in found["shards"]]
    assert named == [(0, ["local/default/a"], 3), (1, ["local/default/busy"], 0)]
    assert (found["shards"][0]["tasks"]["pending"], found["shards"][0]["size_bytes"]) == (5, 10)
    lines = shell("status", "--limit", "2").out.splitlines()
    assert [line.split()[1] for line in lines[1:3]] == ["local/default/a", "local/default/busy"]
    assert "and 3 more instances in which something waits; see: incus-courier status --all" in lines


def test_status_shows_every_instance_page_by_page_when_asked(
    depot: Depot, shell: Shell, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also those that everything was delivered to: for programs a line each, and the shards in the last one."""
    monkeypatch.setattr(status, "_PAGE", 2)
    for name in ("a", "b", "c"):
        depot.accept("/x", instance=name)
    depot.settle(depot.accept("/x", instance="d"), State.DELIVERED)
    *instances, shards = shell("status", "--all", "--json").json
    assert [(each["shard"], each["instance"]) for each in instances] == [(0, f"local/default/{name}") for name in "abcd"]
    assert (instances[3]["tasks"]["delivered"], instances[3]["oldest_age_s"]) == (1, None)
    assert (shards["shards"][0]["tasks"]["pending"], shards["shards"][0]["instances"]) == (3, [])
    lines = shell("status", "--all").out.splitlines()
    assert [line.split()[1] for line in lines if "local/" in line] == [f"local/default/{name}" for name in "abcd"]




def test_what_comes_from_others_cannot_steer_a_terminal(shell: Shell, depot: Depot) -> None:
    """Codes, reasons and names are shown escaped to people, and to programs as JSON that says the same."""
    evil = "\x1b]0;owned\x07\u202e\u200b"
    upload = depot.accept("/\u202etxt")
    depot.settle(upload, State.FAILED, error_code=evil, error_message=evil)
    for words in (["list"], ["show", upload.task_id], ["show", "--json", upload.task_id], ["list", "--json"], ["show", evil]):
        done = shell("tasks", *words)
        assert all(is_plain(line) for line in (done.out + done.err).split("\n"))
    [shown] = shell("tasks", "show", "--json", upload.task_id).json
    assert shown["error"]["code"] == evil
