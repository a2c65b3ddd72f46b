"""What `visavis run bot` does not load: each of these costs every start of it, and nothing of it is needed there."""

import subprocess
import sys

import pytest

UNWANTED = ("alembic", "bot.makings", "holidays", "icalendar", "jinja2")
LOADING = "import sys, visavis, web.metrics, web.serving, bot.app; print(*sorted(sys.modules), sep='\\n')"


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """The modules of a process that has loaded what runs the bot."""
    return set(
        subprocess.run([sys.executable, "-c", LOADING], check=True, capture_output=True, text=True).stdout.split()
    )


@pytest.mark.parametrize("unwanted", UNWANTED)
def test_the_bots_process_does_not_load(loaded: set[str], unwanted: str) -> None:
    assert unwanted not in loaded


def test_the_bots_process_loads_the_bot(loaded: set[str]) -> None:
    assert {"bot.app", "nio", "sqlalchemy"} - loaded == set()
