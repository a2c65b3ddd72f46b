"""Python as a production machine has it: with what requirements.txt installs, and none of the tests' packages.

Some libraries load others where they find them (structlog Twisted and rich, peewee psycopg). The tests and the
embedded servers bring those; a start or a memory measured beside them would not be a user's. And an installation has
its modules compiled: the first start, which is not counted, keeps what it compiles even where the shell says otherwise.
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from benchmarks.demo import ROOT

PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==", re.MULTILINE)


def production_python(folder: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """The command that starts this Python, and what to add to its environment; `folder` is made and filled."""
    folder.mkdir(parents=True, exist_ok=True)
    for found in PINNED.finditer((ROOT / "requirements.txt").read_text()):
        with suppress(PackageNotFoundError):  # it is for another Python or system
            link_package(folder, found[1])
    return (sys.executable, "-S"), {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": ""}


def link_package(folder: Path, name: str) -> None:
    installed = distribution(name)
    heads = {path.parts[0] for path in installed.files or ()} - {"..", "__pycache__"}
    for head in heads:
        link = folder / head
        if not link.is_symlink():
            link.symlink_to(Path(str(installed.locate_file(head))).resolve())
