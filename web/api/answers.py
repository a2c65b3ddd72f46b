"""How the API answers: a model as JSON, a change with its tag, and everything with a key once."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Never, TypeVar

from aiohttp import web
from pydantic import BaseModel

from supervision.appointments import Appointment
from supervision.db import Transaction
from supervision.errors import Refused, Stale
from supervision.series import Clash
from supervision.texts import Reader
from web import problems, repeats, schemas
from web.api import requests
from web.changes import Change, carry_out
from web.repeats import Answer, Repeat
from web.schemas import Given
from web.state import person, visitor

Result = TypeVar("Result")


async def change(
    request: web.Request,
    asked: Change[Result],
    answer: Callable[[Result], Answer],
    body: Given | None = None,
    *,
    tagged: bool = False,
) -> web.Response:
    """Carry out what is asked for, and answer; with an `Idempotency-Key` a refusal is an answer that is kept too.

    `tagged` says that the act itself looks at `If-Match`. What is changed otherwise has no tag, so that none can match
    (RFC 9110, section 13.1.1): refused as stale.
    """
    reader = visitor(request).reader
    if not tagged and not requests.agrees(requests.tags(request, "If-Match"), ()):
        asked = replace(asked, act=_refuse_stale)

    def refuse(refused: Refused) -> Answer:
        problem = problems.of_refusal(reader, refused)
        return Answer(problem.status, {"Content-Type": problems.MEDIA_TYPE}, problem.members(reader))

    key = request.headers.get("Idempotency-Key")
    repeat = None if key is None else _recognise(request, key, body)
    return respond(await carry_out(request, asked, answer, repeat, refuse))


async def _refuse_stale(_: Transaction) -> Never:
    raise Stale


def respond(answer: Answer) -> web.Response:
    body = None if answer.body is None else json.dumps(answer.body, ensure_ascii=False).encode()
    return web.Response(status=answer.status, headers=answer.headers, body=body)


def show(model: BaseModel) -> web.Response:
    return web.Response(body=model.model_dump_json().encode(), content_type="application/json")


def show_if_new(request: web.Request, answer: Answer) -> web.Response:
    """The answer; or nothing but its tag to whoever has it already (RFC 9110, section 13.1.2)."""
    tag = answer.headers["ETag"]
    if requests.tags(request, "If-None-Match") & {"*", tag.strip('"')}:
        return web.Response(status=304, headers={"ETag": tag})
    return respond(answer)


def of_model(model: BaseModel, status: int, **headers: str) -> Answer:
    return Answer(status, {"Content-Type": "application/json", **headers}, model.model_dump(mode="json", by_alias=True))


def of_appointment(appointment: Appointment, status: int) -> Answer:
    headers = {"ETag": f'"{tag_of(appointment)}"'}
    if status == 201:
        headers["Location"] = f"/api/appointments/{appointment.id}"
    return of_model(schemas.Appointment.of(appointment), status, **headers)


def of_several(reader: Reader, changed: Iterable[Appointment], clashes: Iterable[Clash]) -> Answer:
    shown = schemas.SeveralChanged(
        items=[schemas.Appointment.of(one) for one in changed], clashes=[of_clash(reader, clash) for clash in clashes]
    )
    return of_model(shown, 200)


def of_clash(reader: Reader, clash: Clash) -> schemas.Clash:
    try:
        detail = reader.say(clash.key)
    except KeyError:  # a sentence with figures, which a clash does not have
        detail = reader.say("web.status.409")
    return schemas.Clash(starts_at=clash.starts_at, local=clash.local, code=clash.key, detail=detail)


def nothing(_: object) -> Answer:
    return Answer(204)


def tag_of(appointment: Appointment) -> str:
    """Revision, status and open proposal: the latter two change without the revision, as no calendar shows them."""
    tag = f"{appointment.revision}-{appointment.status}"
    return tag if appointment.proposal is None else f"{tag}-{appointment.proposal.id.hex[:8]}"


def tag_of_model(model: BaseModel) -> str:
    """For what has no revision: a digest of what is shown."""
    return hashlib.sha256(model.model_dump_json().encode()).hexdigest()[:16]


def _recognise(request: web.Request, key: str, body: Given | None) -> Repeat:
    conditions = request.headers.get("If-Match", "")
    content = "" if body is None else body.model_dump_json(exclude_unset=True)
    return repeats.recognise(person(request).id, "api", key, f"{request.method} {request.path}", conditions, content)
