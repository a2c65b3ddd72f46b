"""Refusals as HTTP: the one table of statuses, and problem details (RFC 9457)."""

import json
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from aiohttp import web

from supervision import texts
from supervision.errors import (
    AlreadyAnswered,
    Ambiguous,
    NotAllowed,
    NotFound,
    NotUnderstood,
    PairArchived,
    Refused,
    SlotTaken,
    Stale,
    TooLate,
    TooMany,
    TooSoon,
)
from supervision.texts import Reader

log = structlog.get_logger()

STATUS: dict[type[Refused], int] = {
    NotAllowed: 403,
    TooSoon: 403,
    TooLate: 403,
    NotFound: 404,
    SlotTaken: 409,
    AlreadyAnswered: 409,
    PairArchived: 409,
    Stale: 412,
    NotUnderstood: 422,
    Ambiguous: 422,
    TooMany: 429,
}
RETRY_AFTER_SECONDS = 10
MEDIA_TYPE = "application/problem+json"


def status_of(refused: Refused) -> int:
    return next((STATUS[kind] for kind in type(refused).__mro__ if kind in STATUS), 422)


def sentence(reader: Reader, refused: Refused) -> str:
    """The refusal in the reader's words. Where the catalogue lacks it, the meaning of its status has to do."""
    try:
        return texts.refusal(reader, refused)
    except KeyError:
        log.error("web.text_missing", key=refused.key)
        return reader.say(f"web.status.{status_of(refused)}")


@dataclass(frozen=True)
class Problem:
    """Problem details: `code` is a static word that programs can compare; `more` are further members."""

    status: int
    detail: str
    code: str
    more: dict[str, object] = field(default_factory=dict)

    def members(self, reader: Reader) -> dict[str, object]:
        return {
            "type": "about:blank",
            "title": reader.say(f"web.status.{self.status}"),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.more,
        }


def of_refusal(reader: Reader, refused: Refused) -> Problem:
    more: dict[str, object] = {}
    for name in ("alternatives", "clashes"):
        instants = refused.params.get(name)
        if isinstance(instants, list):
            more[name] = [instant(at) for at in instants if isinstance(at, datetime)]
    return Problem(status_of(refused), sentence(reader, refused), refused.key, more)


def of_status(reader: Reader, status: int) -> Problem:
    return Problem(status, reader.say(f"web.meaning.{status}"), f"web.{status}")


def respond(reader: Reader, problem: Problem) -> web.Response:
    response = web.Response(
        status=problem.status,
        body=json.dumps(problem.members(reader), ensure_ascii=False).encode(),
        content_type=MEDIA_TYPE,
    )
    if problem.status == 401:
        response.headers["WWW-Authenticate"] = 'Cookie realm="Visavis"'
    if problem.status == 429:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def instant(at: datetime) -> str:
    """RFC 3339 in UTC."""
    return at.isoformat().replace("+00:00", "Z")
