"""Several want at the same moment, each in their own room, what only one can have: each is told how it went.

Each race has its negative control: without the guards it really happens, though all goes by encrypted events, a sync
and the bot's lanes. `make test` runs a short form.
"""

import asyncio
import itertools
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import select

from bot import handlers
from bot.events import Incoming
from bot.handlers import Handlers
from embedded.servers import Servers
from supervision import appointments, holds, jobs, moves, waits
from supervision.appointments import OPEN, Appointment
from supervision.models import Status
from supervision.models import appointments as table
from supervision.texts import Minutes, Moments, reader
from tests.support.crowds import Seats, Voice, clear, open_rooms
from tests.support.practice import Practice, open_practice
from tests.support.races import blind, drop_constraint, free, nothing, together
from tests.support.sample import OPEN_HOURS, acts

LONG = os.environ.get("VISAVIS_LONG") == "1"
ROUNDS = 60 if LONG else 4
HOUR = timedelta(hours=1)
STEP = 0.02  # seconds that somebody hesitates more in each of four rounds, so that others come first

Rooms = Sequence[Seats]
NUMBERS = itertools.count()  # no two rounds are about the same hours

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600 if LONG else 300)]


@asynccontextmanager
async def open_house(servers: Servers, template: str, state: Path, *, guarded: bool) -> AsyncIterator[Rooms]:
    """A practice of its own with Ana's rooms; without guards its database takes a person's time twice."""
    name = f"races_{secrets.token_hex(6)}"
    superuser = await asyncpg.connect(servers.postgresql.url("postgres", "postgres"))
    await superuser.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER visavis_owner")
    try:
        async with open_practice(servers, name, state) as practice, open_rooms(practice) as rooms:
            if not guarded:
                await drop_constraint(servers.postgresql, name)
            yield rooms
    finally:
        await superuser.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await superuser.close()


@pytest.fixture(scope="module")
async def guarded(servers: Servers, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rooms]:
    async with open_house(servers, template, tmp_path_factory.mktemp("guarded"), guarded=True) as rooms:
        yield rooms


@pytest.fixture(scope="module")
async def unguarded(servers: Servers, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rooms]:
    async with open_house(servers, template, tmp_path_factory.mktemp("unguarded"), guarded=False) as rooms:
        yield rooms


@pytest.fixture
async def rooms(guarded: Rooms) -> Rooms:
    """Bruno's, Clara's and Davi's room with Ana, nothing booked in any."""
    await clear(guarded)
    return guarded


@pytest.fixture
async def open_doors(unguarded: Rooms) -> Rooms:
    """The same where no constraint keeps anybody's time single."""
    await clear(unguarded)
    return unguarded


@pytest.fixture(autouse=True)
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty commands a minute are enough for people, not for so many rounds."""
    monkeypatch.setattr(handlers, "COMMANDS_A_MINUTE", 6_000)


def fresh_hour(rooms: Rooms) -> datetime:
    """The first of two free hours of one of Ana's afternoons.

    Her mornings stay free: the four times that are named instead of a taken one are the same whoever came first.
    """
    day, part = divmod(next(NUMBERS), 2)
    zone = rooms[0].pair.supervisor.zone
    first = datetime.now(zone).date() + timedelta(days=4)
    working = (first + timedelta(days=ahead) for ahead in itertools.count())
    weekdays = itertools.islice((one for one in working if one.weekday() < 5), day, None)
    return datetime.combine(next(weekdays), time(14 + 2 * part), zone).astimezone(UTC)


async def after(pause: float, voice: Voice, command: str) -> str:
    await asyncio.sleep(pause)
    return await voice.ask(command)


async def all_of(rooms: Rooms) -> list[Appointment]:
    async with rooms[0].practice.database.transaction() as tx:
        rows = await tx.execute(select(*appointments.COLUMNS).order_by(table.c.starts_at, table.c.created_at))
        return [appointments.from_row(row) for row in rows]


async def at_hour(rooms: Rooms, at: datetime) -> list[Appointment]:
    """The open appointments that begin then."""
    return [one for one in await all_of(rooms) if one.starts_at == at and one.status in OPEN]


async def as_it_is(one: Appointment, rooms: Rooms) -> Appointment:
    """The same appointment, read again."""
    [left] = [found for found in await all_of(rooms) if found.id == one.id]
    return left


def overlaps(found: Sequence[Appointment]) -> int:
    """How many times two open appointments or open proposals take the same time of the one supervisor."""
    ranges = [
        held
        for one in found
        if one.status in OPEN
        for held in [one.held, *([one.proposal.held] if one.proposal else [])]
    ]
    return sum(
        1
        for place, (start, end) in enumerate(ranges)
        for since, until in ranges[:place]
        if start < until and since < end
    )


async def request(seats: Seats, at: datetime, *, agreed: bool = False) -> Appointment:
    pair = seats.pair
    async with seats.practice.database.transaction() as tx:
        now = datetime.now(UTC)
        booked = await appointments.book(tx, acts(pair.supervisee), pair, at, now=now)
        return await appointments.confirm(tx, acts(pair.supervisor), booked.id, now=now) if agreed else booked


async def propose(voice: Voice, one: Appointment, at: datetime) -> Appointment:
    async with voice.practice.database.transaction() as tx:
        return await moves.reschedule(tx, acts(voice.person), one.id, at, now=datetime.now(UTC))


async def expect_one_booker(rooms: Rooms, voices: Sequence[Voice], at: datetime, answers: Sequence[str]) -> None:
    """One of these has the hour, and each was told so, or not so, in the words of the catalogue."""
    [won] = await at_hour(rooms, at)
    [winner] = [voice for voice in voices if voice.pair.id == won.pair_id]
    expected = [voice.booked(won) if voice is winner else await voice.taken(at) for voice in voices]
    assert list(answers) == expected


async def test_three_book_the_same_hour(rooms: Rooms) -> None:
    voices = [seats.theirs for seats in rooms]
    for number in range(ROUNDS):
        at = fresh_hour(rooms)
        turn = number % 3
        in_turn = voices[turn:] + voices[:turn]  # another is the first to send each time
        answers = await asyncio.gather(*(voice.ask(voice.word("book", voice.when(at))) for voice in in_turn))
        await expect_one_booker(rooms, in_turn, at, answers)
    assert overlaps(await all_of(rooms)) == 0


async def test_without_the_guards_three_have_the_same_hour(open_doors: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window between look and write is widened until all three have looked: that they ever do so at once shows
    that the bot handles open_doors side by side."""
    voices = [seats.theirs for seats in open_doors]
    monkeypatch.setattr(appointments, "lock_people", nothing)
    monkeypatch.setattr(holds, "look", blind(together(3)))
    at = fresh_hour(open_doors)
    answers = await asyncio.gather(*(voice.ask(voice.word("book", voice.when(at))) for voice in voices))
    by_pair = {one.pair_id: one for one in await at_hour(open_doors, at)}
    assert answers == [voice.booked(by_pair[voice.pair.id]) for voice in voices]
    assert overlaps(await all_of(open_doors)) == 3


async def accept_in_the_room(seats: Seats, proposed: Appointment, *, tap: bool) -> None:
    """Ana agrees to a proposal, typing or by a tap under its news; both are told."""
    ana, theirs, proposal = seats.ana, seats.theirs, proposed.proposal
    assert proposal is not None
    if tap:
        news = ana.says(
            "news.move_proposed",
            who=theirs.person.name,
            was=ana.span(proposed.starts_at),
            span=ana.span(proposal.starts_at),
            until=Moments((proposal.answer_by,)),
        )
        await ana.phone.react(ana.room, (await ana.hear(news)).event_id, "✅")
    else:
        assert await ana.ask(ana.word("accept", "1")) == ana.says(
            "move.accepted",
            was=ana.span(proposed.starts_at),
            span=ana.span(proposal.starts_at),
            other=theirs.person.name,
        )
    await theirs.hear(
        theirs.says(
            "news.move_accepted",
            who=ana.person.name,
            was=theirs.span(proposed.starts_at),
            span=theirs.span(proposal.starts_at),
        )
    )


async def test_a_move_is_accepted_while_others_book_both_its_hours(rooms: Rooms) -> None:
    """The new hour is held all the time; the old one is Clara's from the moment on that it is given back."""
    bruno, clara, davi = rooms
    for number in range(ROUNDS):
        at = fresh_hour(rooms)
        proposed = await propose(bruno.theirs, await request(bruno, at, agreed=True), at + HOUR)
        pause = number % 4 * STEP
        old, new, _ = await asyncio.gather(
            after(pause, clara.theirs, clara.theirs.word("book", clara.theirs.when(at))),
            after(pause, davi.theirs, davi.theirs.word("book", davi.theirs.when(at + HOUR))),
            accept_in_the_room(bruno, proposed, tap=number % 2 == 1),
        )
        [moved] = await at_hour(rooms, at + HOUR)
        assert (moved.id, moved.status, moved.revision, moved.proposal) == (proposed.id, Status.CONFIRMED, 2, None)
        assert new == await davi.theirs.taken(at + HOUR)
        given = await at_hour(rooms, at)
        assert [one.pair_id for one in given] in ([], [clara.pair.id])
        assert old == (clara.theirs.booked(given[0]) if given else await clara.theirs.taken(at))
    assert overlaps(await all_of(rooms)) == 0


async def test_without_the_guards_a_move_is_accepted_to_an_hour_that_another_books(
    open_doors: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Davi is let in though the hour is held."""
    bruno, _, davi = open_doors
    at = fresh_hour(open_doors)
    proposed = await propose(bruno.theirs, await request(bruno, at, agreed=True), at + HOUR)
    monkeypatch.setattr(appointments, "lock_people", nothing)
    monkeypatch.setattr(holds, "look", blind(free))
    new, _ = await asyncio.gather(
        davi.theirs.ask(davi.theirs.word("book", davi.theirs.when(at + HOUR))),
        accept_in_the_room(bruno, proposed, tap=False),
    )
    both = {one.pair_id: one for one in await at_hour(open_doors, at + HOUR)}
    assert sorted(both) == sorted([bruno.pair.id, davi.pair.id])
    assert new == davi.theirs.booked(both[davi.pair.id])
    assert overlaps(await all_of(open_doors)) == 1


async def cross(seats: Seats, counters: Voice, news: str, to: datetime, pause: float) -> list[str]:
    """Ana taps ✅ under Bruno's proposal while another time is proposed; the answers, none to a tap that was in time.

    A last command of Ana's tells when all before it in the room has been answered.
    """
    mark = counters.phone.mark()
    event_id = (await seats.ana.hear(news)).event_id

    async def tap() -> None:
        await asyncio.sleep(pause)
        await seats.ana.phone.react(seats.ana.room, event_id, "✅")

    await asyncio.gather(tap(), counters.send(counters.word("move", counters.when(to))))
    await seats.ana.send("!language")
    answers: list[str] = []
    while (answer := await counters.answer(mark)) != seats.ana.says("language.which"):
        answers.append(answer)
    return answers


@pytest.mark.parametrize("who", ["Ana", "Bruno"])
async def test_a_counter_proposal_crosses_an_accept(rooms: Rooms, who: str) -> None:
    """Ana's own other time, or another that Bruno proposes himself: an accepted tap is of the time that it is under."""
    bruno, clara, _ = rooms
    counters = bruno.ana if who == "Ana" else bruno.theirs
    one = await request(bruno, fresh_hour(rooms), agreed=True)
    for number in range(ROUNDS):
        at = fresh_hour(rooms)
        one = await propose(bruno.theirs, one, at)
        assert one.proposal is not None
        was, until = one.starts_at, one.proposal.answer_by
        news = bruno.ana.says(
            "news.move_proposed",
            who="Bruno",
            was=bruno.ana.span(was),
            span=bruno.ana.span(at),
            until=Moments((until,)),
        )
        pause = number % 4 * STEP
        answers, booked = await asyncio.gather(
            cross(bruno, counters, news, at + HOUR, pause),
            after(pause, clara.theirs, clara.theirs.word("book", clara.theirs.when(at))),
        )
        one = await as_it_is(one, rooms)
        assert one.proposal is not None
        assert (one.proposal.starts_at, one.proposal.by) == (at + HOUR, counters.person.id)
        accepted = one.starts_at == at
        assert accepted or one.starts_at == was
        sent = counters.says(
            "reschedule.proposed",
            was=counters.span(one.starts_at),
            span=counters.span(at + HOUR),
            other=counters.pair.other(counters.person.id).name,
            until=Moments((one.proposal.answer_by,)),
        )
        assert answers == ([sent] if accepted else [sent, bruno.ana.says("refused.stale")])
        hers = [found for found in await at_hour(rooms, at) if found.pair_id == clara.pair.id]
        assert booked == (clara.theirs.booked(hers[0]) if hers else await clara.theirs.taken(at))
    assert overlaps(await all_of(rooms)) == 0


def confirmed_and_called_off(seats: Seats, at: datetime) -> tuple[str, str]:
    """What both are told who did it."""
    ana, theirs = seats.ana, seats.theirs
    return (
        ana.says("confirm.done", span=ana.span(at), supervisee=theirs.person.name),
        theirs.says("cancel.done", span=theirs.span(at), other=ana.person.name),
    )


async def test_a_request_is_confirmed_and_called_off(rooms: Rooms) -> None:
    """Whichever comes first, it is called off in the end; what was confirmed before that has had both its revisions."""
    bruno, *_ = rooms
    ana, his = bruno.ana, bruno.theirs
    for number in range(ROUNDS):
        at = fresh_hour(rooms)
        one = await request(bruno, at)
        pause, mark = number % 4 * STEP, his.phone.mark()

        async def hesitate(voice: Voice, command: str, pause: float = pause) -> None:
            await asyncio.sleep(pause)
            await voice.send(command)

        await asyncio.gather(ana.send(ana.word("confirm", "1")), hesitate(his, his.word("cancel", "1")))
        answers = {await his.answer(mark) for _ in range(2)}
        left = await as_it_is(one, rooms)
        confirmed, called_off = confirmed_and_called_off(bruno, at)
        first = confirmed if left.revision == 2 else ana.says("appointments.no_requests")
        assert (left.status, left.late, answers) == (Status.CANCELLED, False, {first, called_off})
        await ana.hear(ana.says("news.cancelled", who="Bruno", span=ana.span(at)))


async def test_a_tap_confirms_what_is_called_off(rooms: Rooms) -> None:
    """A tap that comes too late is answered; one in time is told to Bruno, unless it is out of date by then."""
    bruno, *_ = rooms
    ana, his = bruno.ana, bruno.theirs
    for _ in range(ROUNDS):
        at = fresh_hour(rooms)
        one = await request(bruno, at)
        until = Moments((one.answer_by or at,))
        asked = await ana.hear(ana.says("news.requested", supervisee="Bruno", span=ana.span(at), until=until))
        mark = his.phone.mark()
        await asyncio.gather(ana.phone.react(ana.room, asked.event_id, "✅"), his.send(his.word("cancel", "1")))
        called_off = confirmed_and_called_off(bruno, at)[1]
        cancelled = await ana.hear(ana.says("news.cancelled", who="Bruno", span=ana.span(at)))
        assert cancelled.mentions == (bruno.pair.supervisor.matrix_id,)
        await ana.send("!language")
        answers = []
        while (answer := await his.answer(mark)) != ana.says("language.which"):
            answers.append(answer)
        left = await as_it_is(one, rooms)
        late = [ana.says("refused.stale")] if left.revision == 1 else []
        assert (left.status, answers) == (Status.CANCELLED, [called_off, *late])


async def test_without_lane_and_lock_it_is_confirmed_and_called_off_at_once(
    open_doors: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are told that it was done, as the same revision, and one of them is wrong.

    A room's events wait for one another, and so do changes of one appointment: both are undone here, and each waits
    after its look until the other has looked too.
    """
    handle, look = Handlers._handle, together(2)  # noqa: SLF001 - the bot's loop has bound the public one long ago
    beside: list[asyncio.Task[None]] = []

    async def do_not_wait(self: Handlers, event: Incoming) -> None:
        beside.append(asyncio.create_task(handle(self, event)))

    async def both_look(tx: object, actor: object, appointment_id: object, if_revision: object = None) -> Appointment:
        found = await appointments.get(tx, actor, appointment_id)  # type: ignore[arg-type]  # passed on as they came
        await look()
        return found

    bruno, *_ = open_doors
    at = fresh_hour(open_doors)
    one = await request(bruno, at)
    monkeypatch.setattr(Handlers, "_handle", do_not_wait)
    monkeypatch.setattr(appointments, "get_locked", both_look)
    mark = bruno.theirs.phone.mark()
    await asyncio.gather(
        bruno.ana.send(bruno.ana.word("confirm", "1")), bruno.theirs.send(bruno.theirs.word("cancel", "1"))
    )
    answers = {await bruno.theirs.answer(mark) for _ in range(2)}
    await asyncio.gather(*beside)
    assert answers == set(confirmed_and_called_off(bruno, at))
    assert (await as_it_is(one, open_doors)).revision == 1


@asynccontextmanager
async def job_running(practice: Practice) -> AsyncIterator[None]:
    """Whatever has to be done from time to time, as `visavis run` does it."""
    schedule = jobs.schedule(practice.database)
    schedule.start()
    try:
        yield
    finally:
        schedule.shutdown()
        await asyncio.gather(*schedule.woken, return_exceptions=True)


async def wait_in_the_room(voice: Voice, at: datetime) -> None:
    """This supervisee waits for an hour that somebody has."""
    says = reader(voice.person.language, voice.person.time_zone)
    assert await voice.ask(f"!waitlist {voice.when(at)}") == "\n".join(
        [
            voice.says("waitlist.joined", supervisor=voice.pair.supervisor.name, city=says.city()),
            voice.says("waitlist.time", day=says.day(at), since=says.clock(at)),
            voice.says("waitlist.how", minutes=Minutes(OPEN_HOURS.offer)),
        ]
    )


async def hear_offer(voice: Voice, at: datetime) -> str:
    """Wait until the hour is kept for this supervisee; the event that says so."""
    async with asyncio.timeout(60):
        while not (found := await offers_of(voice)):  # noqa: ASYNC110 - a job in this process keeps it, or another
            await asyncio.sleep(0.02)
    [offer] = found
    assert offer.starts_at == at
    until = Moments((offer.until,))
    return (await voice.hear(voice.says("news.offer", span=voice.span(at), until=until))).event_id


async def offers_of(voice: Voice) -> list[waits.Offer]:
    async with voice.practice.database.transaction() as tx:
        return [one.offer for one in await waits.list_of(tx, voice.pair.id) if one.offer is not None]


async def take_offer(voice: Voice, at: datetime, event_id: str, *, tap: bool) -> str:
    mark = voice.phone.mark()
    if tap:
        await voice.phone.react(voice.room, event_id, "✅")
    else:
        await voice.send("!waitlist yes")
    return await voice.answer(mark)


async def test_a_freed_hour_is_kept_for_who_waits_or_booked_by_another(rooms: Rooms) -> None:
    """Davi comes ever later after Clara has called off; what he cannot have is Bruno's, who waits for it."""
    async with job_running(rooms[0].practice):
        bruno, clara, davi = rooms
        waiting, other = bruno.theirs, davi.theirs
        for number in range(ROUNDS):
            at = fresh_hour(rooms)
            await request(clara, at)
            await wait_in_the_room(waiting, at)
            book = other.word("book", other.when(at))
            told, _ = await asyncio.gather(
                after(number % 4 * STEP, other, book), clara.theirs.ask(clara.theirs.word("cancel", "1"))
            )
            booked = await at_hour(rooms, at)
            if booked:
                assert [one.pair_id for one in booked] == [davi.pair.id]
                assert (told, await offers_of(waiting)) == (other.booked(booked[0]), [])
                assert await waiting.ask("!waitlist off") == waiting.says("waitlist.left")
            else:
                tap = number % 2 == 1
                event_id = await hear_offer(waiting, at)
                assert told == await other.taken(at)
                answer, told = await asyncio.gather(take_offer(waiting, at, event_id, tap=tap), other.ask(book))
                [his] = await at_hour(rooms, at)
                asked = waiting.says("waitlist.asked", span=waiting.span(at), supervisor="Ana")
                assert (his.pair_id, answer) == (bruno.pair.id, waiting.booked(his) if tap else asked)
                assert told == await other.taken(at)
    assert overlaps(await all_of(rooms)) == 0


async def test_without_the_guards_a_freed_hour_is_kept_and_booked(
    open_doors: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look of the job, and Davi's, wait for each other."""
    async with job_running(open_doors[0].practice):
        bruno, clara, davi = open_doors
        at = fresh_hour(open_doors)
        await request(clara, at)
        await wait_in_the_room(bruno.theirs, at)
        monkeypatch.setattr(appointments, "lock_people", nothing)
        monkeypatch.setattr(waits, "_try_lock", free)
        monkeypatch.setattr(holds, "look", blind(together(2)))
        told, _ = await asyncio.gather(
            davi.theirs.ask(davi.theirs.word("book", davi.theirs.when(at))),
            clara.theirs.ask(clara.theirs.word("cancel", "1")),
        )
        await hear_offer(bruno.theirs, at)
        [booked] = await at_hour(open_doors, at)
        assert (booked.pair_id, told) == (davi.pair.id, davi.theirs.booked(booked))
