"""A file by SFTP that is written in place: it keeps what SFTP cannot show, and readers may meet half of it."""

from collections.abc import Callable

from daemon.errors import Undelivered
from daemon.spool import Source
from worker.targets import source as spool
from worker.targets.attributes import Attributes, Wanted, refuse_unless_exact, where
from worker.targets.base import Delivery
from worker.targets.incus.sftp_channel import Channel
from worker.targets.incus.sftp_part import closing_handle, digest, write_all
from worker.targets.incus.sftp_way import Way


async def overwrite(
    channel: Channel, delivery: Delivery, path: bytes, existing: Attributes, want: Wanted, source: Source,
    before_write: Callable[[], None], way: Way | None,
) -> Attributes:
    """Put the bytes of `source` into the file at `path`, which is `existing`; give it mode and owner if it has others.

    Returns what it is then. `way` is that to `path`, if it matters. Raises Undelivered('verify_failed') when something
    else is there by now, and for what does not come out right; and what `way` raises.
    """
    async with closing_handle(channel, channel.open_to_write(path)) as handle:
        # The server follows a link that a user put there meanwhile: what it leads to is not the file that was seen.
        if await channel.attributes(channel.fstat(handle)) != existing:
            raise Undelivered("verify_failed", f"{where(delivery)}: another file is there than before")
        if way is not None:
            await way.hold(path, existing)
        before_write()
        await write_all(channel, handle, source, delivery.size)
        await channel.done(channel.truncate(handle, delivery.size))
        # Not unless it must be: with an access list the group's bits are its mask.
        if not want.met_by(await channel.attributes(channel.fstat(handle))):
            await channel.done(channel.chown(handle, want.uid, want.gid), channel.chmod(handle, want.mode))
        found = await channel.attributes(channel.fstat(handle))
        refuse_unless_exact(delivery, want, found)
        if delivery.verify == "digest":
            spool.refuse_unless_same(await digest(channel, handle, delivery.size), source, delivery)
        return found
