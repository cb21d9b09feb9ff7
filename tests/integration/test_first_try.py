from pathlib import Path

from tests.support.service import Service


def test_line_of_the_readme_delivers_where_there_is_no_incus(tmp_path: Path) -> None:
    """A newcomer pastes `…/v1/instances/c1/files/root/hello.txt`, with the defaults, and finds the file in the state."""
    with Service(tmp_path, {"delivery": {"mkdirs": False}}).start() as service:
        accepted = service.client.put("c1", "/root/hello.txt", b"hello\n")
        service.wait_quiet()
    assert accepted is not None
    assert accepted.status == 202
    assert (service.layout.instances / "c1/root/hello.txt").read_bytes() == b"hello\n"
