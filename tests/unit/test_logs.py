"""What a log line may show of an error."""

import io
import logging

from supervision.logs import Discreet, outline


def failing() -> None:
    try:
        raise ValueError("ana@example.org wrote something")
    except ValueError as error:
        raise RuntimeError("secret") from error


def test_an_error_shows_its_types_and_places_but_no_text() -> None:
    try:
        failing()
    except RuntimeError as error:
        shown = outline((type(error), error, error.__traceback__))
    assert [line for line in shown.splitlines() if not line.startswith(" ")] == ["RuntimeError", "ValueError"]
    assert "failing" in shown
    assert "ana@" not in shown
    assert "secret" not in shown


def test_libraries_logs_are_as_discreet() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Discreet("%(message)s"))
    logger = logging.getLogger("tests.discreet")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        failing()
    except RuntimeError:
        logger.exception("work failed")
    assert stream.getvalue().startswith("work failed\nRuntimeError\n")
    assert "secret" not in stream.getvalue()
