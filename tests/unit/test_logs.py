"""What a log line may show of an error."""

import io
import json
import logging

from supervision.logs import Discreet, Lines, outline


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


def test_what_a_library_logs_is_one_json_object_a_line_too() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines())
    logger = logging.getLogger("tests.lines")
    logger.propagate = False
    logger.addHandler(handler)
    logger.warning("Run time of job %s was missed", "a")
    try:
        failing()
    except RuntimeError:
        logger.exception("work\nfailed")
    warned, failed = map(json.loads, stream.getvalue().splitlines())
    assert "secret" not in stream.getvalue()
    assert str(warned.pop("timestamp")).endswith("Z")
    assert warned == {
        "event": "library.warned", "level": "warning", "logger": "tests.lines",
        "message": "Run time of job a was missed",
    }  # fmt: skip
    assert failed["level"] == "error"
    assert failed["message"].startswith("work\nfailed\nRuntimeError\n")
