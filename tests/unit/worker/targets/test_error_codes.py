"""What a failure means. Texts are what real servers say; Incus 6.0.4 unless the row names another."""

import errno

import pytest

from daemon.errors import ERRORS
from worker.targets.error_codes import classify_files_api, classify_http, classify_oserror, classify_sftp

HTTP = [
    (404, 'Failed to fetch instance "nope" in project "default": Instance not found', "instance_not_found"),
    (404, "Project not found", "project_not_found"),
    (404, "not found", "incus_error"),
    (403, 'User does not have permission for project "default"', "instance_refused"),
    (403, "not authorized", "incus_refused"),
    (400, "Missing or invalid upgrade header", "incus_error"),
    (500, "VM agent isn't currently running", "agent_down"),
    (500, "Failed getting instance SFTP connection: VM agent isn't currently running", "agent_down"),
    (500, 'Instance is busy running a "stop" operation', "instance_busy"),
    (500, "Failed getting instance SFTP connection: dial unix /proc/self/fd/80/forkfile.sock: connect: no such file or directory",
     "file_server_lost"),
    (503, "Incus is shutting down", "incus_unreachable"),
    (503, "Incus daemon is starting up", "incus_unreachable"),
    (500, "anything else", "incus_error"),
    (500, 'Get "https://10.87.0.2:8443/1.0/instances/c1?": Unable to connect to: 10.87.0.2:8443 ([dial tcp 10.87.0.2:8443:'
          ' connect: connection refused])', "member_unreachable"),
    (500, "Unable to connect to: 10.87.0.2:8443 ([dial tcp 10.87.0.2:8443: i/o timeout])", "member_unreachable"),
    (500, "Missing event connection with target cluster member", "member_unreachable"),
    (500, "Target cluster member is unavailable", "member_unreachable"),
    (500, "Server isn't ready yet", "member_unreachable"),
]

FILES_API = [
    (404, "Not Found", "parent_not_found"),
    (404, 'Failed to fetch instance "nope" in project "default": Instance not found', "instance_not_found"),
    (404, "Project not found", "project_not_found"),
    (403, "Forbidden", "permission_denied"),
    (500, 'sftp: "open /root: is a directory" (SSH_FX_FAILURE)', "target_is_directory"),
    (500, 'sftp: "remove /t: directory not empty" (SSH_FX_FAILURE)', "target_is_directory"),
    (500, 'sftp: "mkdir /t/f/y: not a directory" (SSH_FX_FAILURE)', "parent_not_directory"),
    (500, 'sftp: "open /t/loop: too many levels of symbolic links" (SSH_FX_FAILURE)', "too_many_links"),
    (500, 'sftp: "write /t/f: no space left on device" (SSH_FX_FAILURE)', "target_full"),
    (500, 'sftp: "lstat /t/x: file name too long" (SSH_FX_FAILURE)', "name_too_long"),
]

SFTP = [
    (2, "open /nope/f: no such file or directory", "parent_not_found"),
    (4, "open /t/f/x: not a directory", "parent_not_directory"),
    (4, "open /sys/x: permission denied", "permission_denied"),
    (3, "", "permission_denied"),
    (4, "open /ro/f: read-only file system", "read_only"),
    (4, "write /small/f: no space left on device", "target_full"),
    (4, "write /home/f: disk quota exceeded", "target_full"),
    (4, "lstat /t/x: file name too long", "name_too_long"),
    (4, "rename /t/.part /t/f: file exists", "target_is_directory"),
    (4, "rename /t/.part /t/f: device or resource busy", "target_is_mount_point"),
    (4, "chown /t/.part: invalid argument", "owner_not_mapped"),
    (4, "something new", "incus_error"),
]


@pytest.mark.parametrize(("status", "text", "code"), HTTP)
def test_api_answer_has_its_code(status: int, text: str, code: str) -> None:
    """An answer of the REST API is known by its status and text."""
    assert classify_http(status, text) == code


@pytest.mark.parametrize(("status", "text", "code"), FILES_API)
def test_files_api_answer_has_its_code(status: int, text: str, code: str) -> None:
    """An answer of the files API is known by the system's error in it."""
    assert classify_files_api(status, text) == code


@pytest.mark.parametrize(("status", "text", "code"), SFTP)
def test_sftp_status_has_its_code(status: int, text: str, code: str) -> None:
    """An SFTP status is known by the system's error at the end of its text."""
    assert classify_sftp(status, text) == code


@pytest.mark.parametrize("name", ["no space left on device", "x: read-only file system: y", "is a directory"])
def test_name_of_a_file_does_not_decide(name: str) -> None:
    """A file that is named like an error does not turn another error into that one."""
    assert classify_sftp(4, f"open /{name}/f: permission denied") == "permission_denied"


@pytest.mark.parametrize(("number", "code"), [
    (errno.ENOENT, "parent_not_found"), (errno.ENOTDIR, "parent_not_directory"), (errno.ENOSPC, "target_full"),
    (errno.EDQUOT, "target_full"), (errno.EROFS, "read_only"), (errno.EACCES, "permission_denied"),
    (errno.EPERM, "permission_denied"), (errno.ELOOP, "too_many_links"), (errno.EISDIR, "target_is_directory"),
    (errno.ENAMETOOLONG, "name_too_long"), (errno.EIO, "io_error"), (errno.EBADF, "io_error"), (None, "io_error"),
])
def test_errno_has_its_code(number: int | None, code: str) -> None:
    """A failure of the system has the code that the same failure has by SFTP."""
    assert classify_oserror(number) == code


def test_every_code_of_the_table_exists() -> None:
    """No failure is given a code that the table of errors does not have."""
    given = {classify_http(status, text) for status, text, _ in HTTP} | {code for _, _, code in SFTP + FILES_API}
    assert given <= set(ERRORS)
