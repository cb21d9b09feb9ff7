from pathlib import Path

import pytest

from daemon.log import flush
from daemon.process.reload import load_again


def test_wrong_configuration_is_told_and_not_taken(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A mistake in the file ends no process: the old one stays in force, and the log says what is wrong."""
    file = tmp_path / "config.toml"
    file.write_text("[api]\nmax_connections = 7\n")
    config = load_again(str(file))
    assert config is not None
    assert config.api.max_connections == 7
    file.write_text("[api]\nmax_connections = -1\n")
    assert load_again(str(file)) is None
    flush(within_s=60)
    assert "max_connections" in capfd.readouterr().err
