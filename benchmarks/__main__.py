"""`python -m benchmarks [PART …] [--rounds N] [--state DIR]`: print the ratios of docs/performance.md."""

import argparse
import asyncio
import logging
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from benchmarks import bookings, growth, mails, rooms, round_trip, slots
from benchmarks.demo import DemoFailed, running_demo
from embedded.processes import EmbeddedFailed


async def measure_round_trip(state: Path, rounds: int) -> AsyncIterator[str]:
    async with running_demo(state) as demo:
        yield (await round_trip.measure(demo, state, rounds)).table()


PARTS: dict[str, Callable[[Path, int], AsyncIterator[str]]] = {
    "round_trip": measure_round_trip,
    "bookings": bookings.measure,
    "slots": slots.measure,
    "growth": growth.measure,
    "mails": mails.measure,
    "rooms": rooms.measure,
}


async def run(parts: Sequence[str], state: Path, rounds: int) -> None:
    """Each part in a folder of its own: what one leaves in a database costs the next one's programs memory and time."""
    for part in parts:
        folder = state / part
        folder.mkdir(parents=True, exist_ok=True)
        async for table in PARTS[part](folder, rounds):
            print(table, end="\n\n", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Visavis against bare parts.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--rounds", type=int, default=200, help="rounds of each side (200)")
    parser.add_argument("--state", type=Path, help="keep the servers' state here, not in a temporary folder")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    logging.getLogger("nio").setLevel(logging.CRITICAL)  # it warns of every other device of its room
    with tempfile.TemporaryDirectory(prefix="visavis-bench-") as temporary:
        state: Path = arguments.state or Path(temporary)
        try:
            asyncio.run(run(arguments.parts or list(PARTS), state, arguments.rounds))
        except (DemoFailed, EmbeddedFailed) as failure:
            print(failure, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
