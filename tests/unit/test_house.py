"""The rooms of the house import one another only as docs/architecture.md says."""

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports


def test_the_import_rules_hold() -> None:
    assert lint_imports(config_filename="pyproject.toml", cache_dir=None) == EXIT_STATUS_SUCCESS
