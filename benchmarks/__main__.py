"""`python -m benchmarks [--rounds N] [--state DIR]`: print the ratios of docs/performance.md."""

import argparse
import asyncio
import logging
import sys
import tempfile
from pathlib import Path

from benchmarks.demo import DemoFailed, running_demo
from benchmarks.round_trip import Times, measure


async def run(state: Path, rounds: int) -> Times:
    async with running_demo(state) as demo:
        return await measure(demo, state, rounds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Visavis against nio.")
    parser.add_argument("--rounds", type=int, default=200, help="round trips of each side (200)")
    parser.add_argument("--state", type=Path, help="keep the demo's state here, not in a temporary folder")
    arguments = parser.parse_args()
    logging.getLogger("nio").setLevel(logging.CRITICAL)  # it warns of every other device of its room
    with tempfile.TemporaryDirectory(prefix="visavis-bench-") as temporary:
        state: Path = arguments.state or Path(temporary)
        state.mkdir(parents=True, exist_ok=True)
        try:
            print(asyncio.run(run(state, arguments.rounds)).table())
        except DemoFailed as failure:
            print(failure, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
