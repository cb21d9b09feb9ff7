"""Setting aside what is doubtful: it is moved to lost+found, never deleted, and nothing there is overwritten."""

import os
import time
from pathlib import Path

from daemon.state.layout import Layout, sync_directory


def retire(layout: Layout, path: Path) -> Path:
    """Move a file or directory to lost+found in one step, durably; return its new path. Raises OSError."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    names = (f"{path.name}-{stamp}{suffix}" for suffix in ("", *(f"-{number}" for number in range(1, 1000))))
    target = next(target for name in names if not os.path.lexists(target := layout.lost_found / name))
    os.rename(path, target)
    sync_directory(layout.lost_found)
    sync_directory(path.parent)
    return target
