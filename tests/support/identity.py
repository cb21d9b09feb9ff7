"""Users that need no name: a process of the tests becomes one of them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple


class User(NamedTuple):
    """A user and its only group, as numbers."""

    uid: int
    gid: int

    def become(self) -> None:
        """Be this user, for good. Only root can."""
        os.setgroups([self.gid])
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Be this user for a while, as far as the kernel's permissions go. Only root can."""
        before = os.getgroups()
        os.setgroups([self.gid])
        os.setegid(self.gid)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(before)

    def may(self, act: Callable[[], object]) -> bool:
        """Do it as this user; False when the kernel does not permit it."""
        with self.acting():
            try:
                act()
            except PermissionError:
                return False
        return True
