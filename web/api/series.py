"""The API of series: appointments that are booked together by a rule."""

from aiohttp import web

from supervision import series
from supervision.db import Transaction
from supervision.errors import NotFound
from supervision.series import Booked
from supervision.texts import Reader
from web import schemas
from web.api import answers, requests
from web.api.requests import path_id
from web.changes import Change
from web.repeats import Answer
from web.state import database, now, own_pair, visitor


async def book_series(request: web.Request) -> web.Response:
    """Book a slot and its repetitions: all of them or none, or with `skip` those that do not clash.

    An occurrence keeps the wall-clock time of the supervisor's zone. Approval is as for a single booking.
    """
    body = await requests.body(request, schemas.NewSeries)
    actor, at, reader, wanted = visitor(request).actor, now(request), visitor(request).reader, body.slot

    async def act(tx: Transaction) -> Booked:
        pair = await own_pair(tx, request, wanted.pair_id)
        if pair.supervisor.id != wanted.supervisor_id:
            raise NotFound("refused.pair_not_found")
        length = requests.minutes(wanted.starts_at, wanted.ends_at)
        return await series.book(
            tx, actor, pair, wanted.starts_at, body.rule, skip=body.on_clash == "skip", now=at, length=length
        )

    asked = Change("series.book", "pair", wanted.pair_id, act)
    return await answers.change(request, asked, lambda booked: _answer(reader, booked), body)


async def show_series(request: web.Request) -> web.Response:
    """A series and its appointments, whatever became of them."""
    async with database(request).transaction() as tx:
        found = await series.of(tx, visitor(request).actor, path_id(request))
        items = await series.occurrences(tx, found.id)
    shown = schemas.Series.of(found, items)
    return answers.show_if_new(request, answers.of_model(shown, 200, ETag=f'"{answers.tag_of_model(shown)}"'))


def _answer(reader: Reader, booked: Booked) -> Answer:
    shown = schemas.SeriesBooked(
        id=booked.series_id,
        items=[schemas.Appointment.of(one) for one in booked.booked],
        clashes=[answers.of_clash(reader, clash) for clash in booked.clashes],
    )
    return answers.of_model(shown, 201, Location=f"/api/series/{booked.series_id}")
