import subprocess
import sys

# Blocks too large for Python's own allocator and too small for maps of their own, with something kept above them.
WASTEFUL = """
from pathlib import Path
from supervision.memory import give_back

def resident():
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) // 1024

blocks = [bytes(4_000) for _ in range(10_000)]
kept = bytes(4_000)
del blocks
before = resident()
give_back()
print(before - resident())
"""


def test_freed_memory_below_what_is_kept_goes_back_to_the_system() -> None:
    ran = subprocess.run([sys.executable, "-c", WASTEFUL], check=True, capture_output=True, text=True)
    assert 30 <= int(ran.stdout) <= 45  # MB, of the 40 that were freed
