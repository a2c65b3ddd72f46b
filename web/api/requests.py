"""What a request says: its IDs, query, conditions and JSON body. What makes no sense is refused."""

import re
import uuid
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import TypeVar

from aiohttp import web
from pydantic import ValidationError

from supervision.errors import NotFound, NotUnderstood
from web import schemas
from web.schemas import Given

ETAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e]{1,64})"')
NUMBER = re.compile(r"[0-9]{1,6}")
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
MEMBERS_NAMED = 5

Body = TypeVar("Body", bound=Given)


def path_id(request: web.Request, name: str = "id") -> uuid.UUID:
    """Raises NotFound for what is no lower-case UUID: nothing has such an ID."""
    text = request.match_info[name]
    try:
        found = uuid.UUID(text)
    except ValueError as error:
        raise NotFound from error
    if str(found) != text:
        raise NotFound
    return found


async def body(request: web.Request, model: type[Body]) -> Body:
    """The JSON body as that model; an empty body is an empty object. Raises NotUnderstood."""
    content = await request.read() or b"{}"
    if request.body_exists and request.content_type != "application/json" and content != b"{}":
        raise NotUnderstood("web.refused.json")
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        places = {".".join(map(str, found["loc"])) for found in error.errors(include_url=False, include_input=False)}
        if not places - {""}:
            raise NotUnderstood("web.refused.json") from error
        raise not_understood(*sorted(places)[:MEMBERS_NAMED]) from error


def not_understood(*members: str) -> NotUnderstood:
    return NotUnderstood("web.refused.members", members=", ".join(members))


def tags(request: web.Request, name: str) -> set[str]:
    """The tags in a conditional header, without quotes: empty without one, `?` in place of what is no tag of ours."""
    given = request.headers.getall(name, [])
    found = [tag.strip() for value in given for tag in value.split(",") if tag.strip()]
    return {"*" if tag == "*" else match[1] if (match := ETAG.fullmatch(tag)) else "?" for tag in found}


def agrees(expected: set[str], present: Iterable[str]) -> bool:
    """Whether `If-Match` (RFC 9110, section 13.1.1) lets a change of what has these tags happen."""
    return not expected or "*" in expected or not expected.isdisjoint(present)


def instant(request: web.Request, name: str) -> datetime | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        return schemas.read_instant(text.replace(" ", "+"))  # a `+` that was not escaped arrives as a space
    except ValueError as error:
        raise not_understood(name) from error


def day(request: web.Request, name: str) -> date:
    """A date that has to be there, such as `2026-12-20`."""
    text = request.query.get(name, "")
    if not DAY.fullmatch(text):
        raise not_understood(name)
    try:
        return schemas.in_years(date.fromisoformat(text))
    except ValueError as error:
        raise not_understood(name) from error


def identifier(request: web.Request, name: str) -> uuid.UUID:
    try:
        return uuid.UUID(request.query.get(name, ""))
    except ValueError as error:
        raise not_understood(name) from error


def minutes(starts_at: datetime, ends_at: datetime) -> int:
    """A slot's length. Raises NotFound for one that is no whole minutes."""
    whole, rest = divmod(ends_at - starts_at, timedelta(minutes=1))
    if rest or whole <= 0:
        raise NotFound("refused.slot_not_offered")
    return whole


def number(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not NUMBER.fullmatch(text):
        raise not_understood(name)
    return int(text)
