"""Which revisions there are: read from the files' own lines, so that a start need not load Alembic and all of them."""

import re
from pathlib import Path

VERSIONS = Path(__file__).parent / "versions"
NAMES = re.compile(r'^(revision|down_revision) = (?:"(\w+)"|None)$', re.MULTILINE)


def known() -> dict[str, str | None]:
    """Each revision with the one before it."""
    found = (dict(NAMES.findall(path.read_text("utf-8"))) for path in VERSIONS.glob("[0-9]*.py"))
    return {names["revision"]: names.get("down_revision") or None for names in found}


def head() -> str:
    """The newest revision."""
    revisions = known()
    [newest] = revisions.keys() - revisions.values()
    return newest
