"""In which order tests run: what takes long first, so that at the end all processes have something short to do."""

from collections import defaultdict
from collections.abc import Sequence

import pytest

# Seconds, roughly, of the files that take longest.
SECONDS = {
    "tests/bot/test_client.py": 110,
    "tests/bot/test_trust.py": 60,
    "tests/bridge/test_delivery.py": 20,
    "tests/interop/test_bot_client.py": 12,
    "tests/interop/test_calendars.py": 10,
    "tests/interop/test_element_engine.py": 16,
    "tests/interop/test_friendly.py": 13,
    "tests/system/test_appointments_in_the_room.py": 20,
    "tests/system/test_bad_input.py": 48,
    "tests/system/test_bridge_crashes.py": 16,
    "tests/system/test_command_line.py": 25,
    "tests/system/test_crash_points.py": 37,
    "tests/system/test_crashes.py": 65,
    "tests/system/test_embedded.py": 60,
    "tests/system/test_exports.py": 11,
    "tests/system/test_files.py": 12,
    "tests/system/test_hostile.py": 20,
    "tests/system/test_identities.py": 11,
    "tests/system/test_main_job.py": 8,
    "tests/system/test_outages.py": 75,
    "tests/system/test_races.py": 45,
    "tests/system/test_retention.py": 18,
    "tests/system/test_rooms_kept.py": 22,
    "tests/system/test_smtp_faults.py": 20,
    "tests/system/test_storms.py": 56,
    "tests/system/test_unreads.py": 60,
    "tests/unit/test_whens.py": 15,
    "tests/web/test_browser.py": 70,
}


def arrange(items: Sequence[pytest.Item], processes: int) -> list[pytest.Item]:
    """The tests in an order for so many processes side by side.

    pytest-xdist's `worksteal` cuts the list into as many parts of one length, a process working through each; who has
    done takes the latter half of another's. So the long files are dealt to the parts' beginnings, each as a whole,
    since what a file sets up for all of its tests is set up in each process that has some of them.
    """
    files: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        files[item.nodeid.partition("::")[0]].append(item)
    parts: list[list[pytest.Item]] = [[] for _ in range(processes)]
    loads = [0] * processes
    for file in sorted(files.keys() & SECONDS.keys(), key=lambda file: (-SECONDS[file], file)):
        least = loads.index(min(loads))
        loads[least] += SECONDS[file]
        parts[least] += files.pop(file)
    short = [item for file in files.values() for item in file]
    for left, part in zip(range(processes, 0, -1), parts, strict=True):
        length = (len(short) + sum(map(len, parts[-left:]))) // left
        missing = max(0, length - len(part))
        part += short[:missing]
        del short[:missing]
    return [item for part in (*parts, short) for item in part]
