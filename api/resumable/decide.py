"""What an append may do, from how its upload stands and what its head says: pure functions."""

from dataclasses import dataclass

from api.resumable.values import WrongOffset
from daemon.errors import Rejected
from daemon.partials import PartialState, Phase


@dataclass(frozen=True, slots=True)
class AppendStep:
    """What an append is let in for."""

    #: How long the upload is, as far as that is known with this append.
    length: int | None
    #: The most bytes that may come; None: as many as an upload may have.
    most: int | None
    #: True when all bytes of the upload are here already, so that what comes is only what was told to be missing.
    frozen: bool = False
    #: True when nothing is left to be done.
    complete: bool = False


def told(state: PartialState) -> int:
    """The offset that may be told."""
    return state.length if state.phase is Phase.COMPLETE and state.length is not None else state.offset


def step_of(
    state: PartialState, offset: int, *, content_length: int | None, length: int | None, final: bool | None,
) -> AppendStep:
    """What an append that begins at `offset` is let in for.

    Raises WrongOffset, and Rejected('inconsistent_length', 'upload_completed' or 'beyond_length').
    """
    stands = told(state)
    if length is not None and (length < stands or state.length not in {None, length}):
        raise Rejected("inconsistent_length", f"The upload has another length, or more bytes than {length}.")
    if offset != stands:
        raise WrongOffset(stands)
    known = state.length if length is None else length
    if state.phase is Phase.COMPLETE:
        if content_length != 0 or final is False:
            raise Rejected("upload_completed")
        return AppendStep(known, 0, complete=True)
    end = None if content_length is None else offset + content_length
    if known is not None and end is not None and end > known:
        raise Rejected("beyond_length", f"The upload is to have {known} bytes, and this ends at {end}.")
    if final and end is not None and known not in {None, end}:
        raise Rejected("inconsistent_length", f"The upload is to have {known} bytes, and its last part ends at {end}.")
    if final and known is None:
        known = end
    return AppendStep(known, None if known is None else known - offset, frozen=state.phase is Phase.COMPLETING)


def unreserved(state: PartialState, offset: int, content_length: int | None, length: int | None) -> int | None:
    """How many bytes an append brings or announces that nobody counted before; None: it does not say."""
    if state.length is not None:
        return 0
    return content_length if length is None else max(0, length - offset)


def is_whole(size: int, length: int | None, *, final: bool | None) -> bool:
    """True when an upload of which `size` bytes are here is to be completed. Raises Rejected('inconsistent_length').

    `length` is None where nobody has said it; then it ends with the last append.
    """
    if final and length not in {None, size}:
        raise Rejected("inconsistent_length", f"The upload is to have {length} bytes, and ended at {size}.")
    return bool(final) or (final is None and size == length)
