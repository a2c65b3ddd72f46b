"""The memory of a process that runs for months."""

import asyncio
import ctypes

FIRST_SECONDS = 3.0
LONGEST_SECONDS = 600.0


def give_back() -> None:
    """Return freed memory to the system (glibc's malloc_trim(3)); other C libraries do so by themselves, or not at all.

    glibc keeps what lies below anything still in use: 8 to 14 MB after a start that had to compile its modules, next to
    nothing where they are compiled. It takes about a millisecond.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


async def keep_small() -> None:
    """Give memory back soon after the start, then ever more rarely, every ten minutes in the end; for ever."""
    pause = FIRST_SECONDS
    while True:
        await asyncio.sleep(pause)
        give_back()
        pause = min(pause * 2, LONGEST_SECONDS)
