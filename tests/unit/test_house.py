"""The rooms of the house import one another only as docs/architecture.md says."""

import tomllib
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports


def test_the_import_rules_hold() -> None:
    assert lint_imports(config_filename="pyproject.toml", cache_dir=None) == EXIT_STATUS_SUCCESS


@pytest.mark.parametrize(
    ("contract", "room", "homes"),
    [
        ("nio appears in the client, trust and rooms alone", "bot", {"client", "trust", "rooms"}),
        ("aiosmtplib appears in bridge/smtp.py alone", "bridge", {"smtp"}),
    ],
)
def test_a_library_s_contract_names_all_modules_but_its_homes(contract: str, room: str, homes: set[str]) -> None:
    root = Path(__file__).parents[2]
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    [named] = [one["source_modules"] for one in settings["contracts"] if one["name"] == contract]
    modules = {path.stem for path in (root / room).glob("*.py")} - {"__init__"}
    assert {one for one in named if one.startswith(f"{room}.")} == {f"{room}.{one}" for one in modules - homes}
