"""Delivery by SFTP over one connection, for one file or for many side by side."""

from collections.abc import Callable, Iterator, Sequence

from daemon.errors import CourierError
from daemon.spool import Source
from worker.targets.attributes import shown
from worker.targets.base import Delivery, Ended, Parcel, Receipt
from worker.targets.incus.sftp_channel import Channel, SftpStatus
from worker.targets.incus.sftp_delivery import SftpDelivery, explained
from worker.targets.incus.sftp_wire import Wire


class SftpSession:
    """A Session over one SFTP connection; see worker.targets.base for what it promises."""

    def __init__(self, wire: Wire, disconnect: Callable[[], None]) -> None:
        """Deliver over `wire`; `disconnect` ends the connection beneath it and never raises."""
        self._wire = wire
        self._disconnect = disconnect
        self.left_part = False

    @property
    def broken(self) -> bool:
        """True when the connection can no longer be used."""
        return self._wire.broken

    def close(self) -> None:
        """End the connection. Never raises."""
        self._wire.close()
        self._disconnect()

    def deliver(self, delivery: Delivery, source: Source, before_rename: Callable[[], None]) -> Receipt:
        """Put the bytes of `source` at the destination; see worker.targets.base.Carrier."""
        channel = Channel(self._wire)
        attempt = SftpDelivery(channel, delivery)
        try:
            return self._wire.run(channel, attempt.deliver(source, before_rename))
        finally:
            self.left_part = attempt.left_part

    def deliver_all(self, parcels: Sequence[Parcel]) -> Iterator[Ended]:
        """Deliver files side by side; see worker.targets.base.Carrier."""
        channels = [Channel(self._wire) for _ in parcels]
        return self._wire.run_all({channel: self._deliver(channel, parcel)
                                   for channel, parcel in zip(channels, parcels, strict=True)})

    async def _deliver(self, channel: Channel, parcel: Parcel) -> Ended:
        attempt = SftpDelivery(channel, parcel.delivery)
        try:
            receipt = await attempt.deliver(parcel.source, parcel.before_rename)
        except (CourierError, OSError) as error:
            bystander = self._wire.broken and self._wire.broke_over is not channel
            return Ended(parcel=parcel, error=error, left_part=attempt.left_part, bystander=bystander)
        return Ended(parcel=parcel, receipt=receipt, left_part=attempt.left_part)

    def sweep(self, delivery: Delivery) -> bool:
        """Remove the part file that a killed attempt left; see worker.targets.base.Carrier."""
        channel = Channel(self._wire)
        return self._wire.run(channel, SftpDelivery(channel, delivery).sweep())

    def link_at(self, path: str) -> str | None:
        """Where the symbolic link at `path` points; see worker.targets.incus.bound_session.SeeingCarrier."""
        channel = Channel(self._wire)
        return self._wire.run(channel, _link_at(channel, path.encode("utf-8", "surrogateescape")))

    def read_file(self, path: str) -> bytes | None:
        """What is in the small file at `path`; see worker.targets.incus.bound_session.SeeingCarrier."""
        channel = Channel(self._wire)
        return self._wire.run(channel, _read_file(channel, path.encode("utf-8", "surrogateescape")))


async def _read_file(channel: Channel, path: bytes) -> bytes | None:
    with explained(shown(path)):
        try:
            # Opening a pipe would wait for who writes into it.
            if not (await channel.attributes(channel.lstat(path))).is_file:
                return None
            handle = await channel.handle(channel.open(path))
            found = await channel.data(channel.read(handle, 0))
            await channel.done(channel.close_handle(handle))
        except SftpStatus:
            return None
        return found


async def _link_at(channel: Channel, path: bytes) -> str | None:
    with explained(shown(path)):
        try:
            return (await channel.link(channel.readlink(path))).decode("utf-8", "surrogateescape")
        except SftpStatus:
            # It is something else, or nothing.
            return None
