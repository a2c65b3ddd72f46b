"""Structured logs: one JSON object a line, static event names, IDs. An error shows its type and where, never its text,
which can quote what people wrote or who they are.
"""

import asyncio
import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import structlog

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]
LARGEST = 10_000_000  # bytes; then the file is begun anew
CAUSES_LOGGED = 5
FRAMES_LOGGED = 20


def write_to(path: Path | None) -> None:
    """Write all logs to a file, or to stderr without one."""
    if path is not None and path.exists() and path.stat().st_size > LARGEST:
        path.replace(path.with_suffix(".log.1"))
    stream = sys.stderr if path is None else path.open("a", encoding="utf-8", buffering=1)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("apscheduler.executors.default").addFilter(_is_no_stop)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(outline),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )


class Discreet(logging.Formatter):
    """For libraries that use the standard logging."""

    def formatException(self, ei: object) -> str:
        return outline(ei)  # type: ignore[arg-type]


class Lines(Discreet):
    """As our own: one JSON object a line, whatever breaks of line the library wrote."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "logger": record.name,
            "message": super().format(record),
            "event": "library.warned",
            "level": record.levelname.lower(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
        }
        return json.dumps(said)


def outline(exc_info: ExcInfo) -> str:
    """The types of an exception and of what caused it, and their frames."""
    lines: list[str] = []
    error: BaseException | None = exc_info[1]
    while error is not None and len(lines) < 200:
        lines += [type(error).__qualname__]
        lines += [f"  {f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        else:
            error = error.__cause__ or error.__context__
    return "\n".join(lines)


def traces(error: BaseException) -> dict[str, object]:
    """What failed where, without the exception's text and without values, which may hold what people wrote."""
    kinds: list[str] = []
    frames = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    cause: BaseException | None = error
    while cause is not None and len(kinds) < CAUSES_LOGGED:
        kinds.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    return {"error": kinds, "frames": frames[-FRAMES_LOGGED:]}


def _is_no_stop(record: logging.LogRecord) -> bool:
    """Whether a record tells of anything but a periodic job that stopping has cut off."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
