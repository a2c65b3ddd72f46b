"""One appointment's life in a real room: moves that are proposed and answered, bookings on behalf, absences."""

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from supervision import notifications, policies, questions
from supervision.audit import Actor
from supervision.db import Transaction
from supervision.models import Approval, Status, appointments, audit_entries
from supervision.pairs import Pair
from supervision.texts import Moments, Span, reader
from tests.support.human import Message
from tests.support.practice import Practice


def saying(sentence: str) -> Callable[[Message], bool]:
    return lambda message: message.body == sentence


def beginning(words: str) -> Callable[[Message], bool]:
    return lambda message: message.body.startswith(words)


def working_day() -> datetime:
    """Midnight, in UTC, of a working day that is at least three days away."""
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=4)
    return day + timedelta(days=max(0, 7 - day.weekday()) if day.weekday() > 4 else 0)


async def pair_up(practice: Practice, **rules: Any) -> Pair:
    """Ana and Bruno in one zone, and what is asked stays open until it begins."""
    ana = await practice.add_person("Ana", ["supervisor"], language="pt-BR", time_zone="UTC")
    bruno = await practice.add_person("Bruno", ["supervisee"], language="en", time_zone="UTC")
    pair = await practice.add_pair(ana, bruno)
    async with practice.database.transaction() as tx:
        changes = {"answer": 43200, **rules}
        await policies.set_rules(tx, Actor(ana.id, "web"), ana.id, changes, now=datetime.now(UTC))
    return pair


def span(hour: int, language: str, *, brief: bool = False) -> str:
    starts_at = working_day() + timedelta(hours=hour)
    return reader(language, "UTC").show(Span(starts_at, starts_at + timedelta(minutes=50), brief=brief))


def until(hour: int, language: str) -> str:
    return reader(language, "UTC").show(Moments((working_day() + timedelta(hours=hour),)))


def moment(hour: int) -> str:
    return f"{working_day():%d/%m/%Y} {hour}:00"


async def states(practice: Practice, pair: Pair) -> list[tuple[datetime, str, int]]:
    columns = appointments.c.starts_at, appointments.c.status, appointments.c.revision
    async with practice.database.transaction() as tx:
        rows = await tx.execute(select(*columns).where(appointments.c.pair_id == pair.id))
        return [(row.starts_at, row.status, row.revision) for row in rows]


async def test_a_move_is_proposed_countered_and_accepted(practice: Practice) -> None:
    pair = await pair_up(practice)
    room, day = pair.room_id or "", working_day()
    async with practice.phones(pair) as (ana, bruno):
        await bruno.ask(room, f"!book {moment(10)}", practice.bot)
        request = await ana.next_message(practice.bot, beginning("Bruno pede"))
        await ana.react(room, request.event_id, "✅")
        await bruno.next_message(practice.bot, beginning("Confirmed by Ana"))

        await bruno.ask(
            room,
            f"!reschedule 1 {moment(15)}",
            practice.bot,
            saying(
                f"Proposal sent: from {span(10, 'en')} to {span(15, 'en')}. The old time stands until Ana accepts; "
                f"the answer can come until {until(10, 'en')}. !decline takes the proposal back."
            ),
        )
        first = await ana.next_message(practice.bot, beginning("Bruno propõe mudar"))
        assert first.mentions == (pair.supervisor.matrix_id,)
        assert await ana.reactions_to(first.event_id, practice.bot, at_least=2) == ["✅", "❌"]
        assert await states(practice, pair) == [(day + timedelta(hours=10), "confirmed", 1)]

        await ana.ask(room, f"!remarcar {moment(16)}", practice.bot, beginning("Proposta enviada: "))
        counter = await bruno.next_message(practice.bot, beginning("Ana proposes to move"))
        await ana.react(room, first.event_id, "✅")  # of a proposal that is gone
        await ana.next_message(practice.bot, beginning("Isto mudou enquanto você olhava."))
        await bruno.react(room, counter.event_id, "✅")
        moved = f"Bruno aceitou: a supervisão muda de {span(10, 'pt-BR')} para {span(16, 'pt-BR')}."
        told = await ana.next_message(practice.bot, saying(moved))
        assert told.mentions == (pair.supervisor.matrix_id,)
        assert await states(practice, pair) == [(day + timedelta(hours=16), "confirmed", 2)]

        await ana.ask(room, f"!remarcar 1 {moment(11)}", practice.bot, beginning("Proposta enviada: "))
        await bruno.next_message(practice.bot, lambda message: span(11, "en") in message.body)
        await bruno.ask(
            room,
            "!accept 1",
            practice.bot,
            saying(
                f"Accepted: moved from {span(16, 'en')} to {span(11, 'en')}. Ana has been told; "
                "the new invitation comes by mail."
            ),
        )
        await bruno.ask(room, f"!reschedule 1 {moment(12)}", practice.bot, beginning("Proposal sent: "))
        last = await ana.next_message(practice.bot, beginning("Bruno propõe mudar"))
        await ana.react(room, last.event_id, "❌")
        await bruno.next_message(
            practice.bot, saying(f"Ana refused the move to {span(12, 'en')}. {span(11, 'en')} stands.")
        )
    assert await states(practice, pair) == [(day + timedelta(hours=11), "confirmed", 3)]
    subjects = [str(mail["Subject"]) for mail in await practice.mails(pair.supervisee.email, at_least=3)]
    assert len(subjects) == len(set(subjects))


async def test_a_tap_counts_though_the_question_is_noted_while_it_is_looked_for(
    practice: Practice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tap finds no question yet, and a moment later it is asked whether the message is known: it is, by then."""
    pair = await pair_up(practice)
    room, looked = pair.room_id or "", asyncio.Event()
    note_event, is_known = notifications.note_event, questions.is_known

    async def note_later(tx: Transaction, notification_id: uuid.UUID, event_id: str) -> None:
        await looked.wait()
        await note_event(tx, notification_id, event_id)

    async def know_later(tx: Transaction, event_id: str) -> bool:
        looked.set()
        assert practice.machine is not None
        async with practice.machine.notices.lock(room):
            return await is_known(tx, event_id)

    async with practice.phones(pair) as (ana, bruno):
        await bruno.send_text(room, f"!book {moment(10)}")
        monkeypatch.setattr("supervision.notifications.note_event", note_later)
        monkeypatch.setattr("supervision.questions.is_known", know_later)
        request = await ana.next_message(practice.bot, beginning("Bruno pede"))
        await ana.react(room, request.event_id, "✅")
        await bruno.next_message(practice.bot, beginning("Confirmed by Ana"))


async def test_a_booking_on_behalf_is_declined_by_a_tap(practice: Practice) -> None:
    pair = await pair_up(practice)
    room = pair.room_id or ""
    async with practice.phones(pair) as (ana, bruno):
        listed = await ana.ask(room, "!horarios", practice.bot, beginning("Horários em que Bruno pode marcar"))
        assert len(await ana.reactions_to(listed.event_id, practice.bot, at_least=3)) >= 3
        await ana.ask(room, f"!agendar {moment(20)}", practice.bot, beginning("Marcado em nome de Bruno: "))
        told = await bruno.next_message(practice.bot, beginning(f"Ana booked for you: {span(20, 'en')}."))
        assert told.mentions == (pair.supervisee.matrix_id,)
        assert await bruno.reactions_to(told.event_id, practice.bot, at_least=1) == ["❌"]
        await bruno.react(room, told.event_id, "✅")  # nothing to agree to
        await bruno.ask(room, "!appointments", practice.bot, lambda message: span(20, "en", brief=True) in message.body)
        assert [status for _, status, _ in await states(practice, pair)] == ["confirmed"]
        await bruno.react(room, told.event_id, "❌")
        await ana.next_message(practice.bot, beginning(f"Bruno recusou {span(20, 'pt-BR')}, que você tinha marcado."))
    assert [status for _, status, _ in await states(practice, pair)] == ["declined"]


async def test_an_automatic_booking_and_an_absence(practice: Practice) -> None:
    pair = await pair_up(practice, approval=Approval.AUTOMATIC)
    room = pair.room_id or ""
    async with practice.phones(pair) as (ana, bruno):
        booked = await bruno.ask(room, f"!book {moment(10)}", practice.bot, beginning("Confirmed: "))
        assert booked.body == f"Confirmed: {span(10, 'en')}. The invitation comes by mail."
        await ana.next_message(practice.bot, beginning(f"Bruno marcou {span(10, 'pt-BR')}."))
        # Nobody waits four days for the hour to pass.
        async with practice.database.transaction() as tx:
            week = timedelta(days=7)
            times = {"starts_at": appointments.c.starts_at - week, "ends_at": appointments.c.ends_at - week}
            await tx.execute(update(appointments).values(status=Status.COMPLETED, **times))
        await ana.ask(room, "!falta", practice.bot, beginning("As últimas supervisões com Bruno"))
        await ana.ask(room, "!falta 1", practice.bot, beginning("Falta anotada: "))
        await bruno.next_message(practice.bot, lambda message: message.body.endswith("was missed."))
        assert [status for _, status, _ in await states(practice, pair)] == ["no_show"]
        await ana.ask(room, "!falta 1", practice.bot, beginning("Corrigido para realizada: "))
        await bruno.next_message(practice.bot, lambda message: message.body.endswith("took place."))
    assert [status for _, status, _ in await states(practice, pair)] == ["completed"]


async def test_a_number_of_a_list_that_has_changed(practice: Practice) -> None:
    pair = await pair_up(practice)
    room = pair.room_id or ""
    async with practice.phones(pair) as (ana, bruno):
        await bruno.ask(room, f"!book {moment(10)}", practice.bot)
        await ana.ask(room, "!agenda", practice.bot, beginning("Suas supervisões com Bruno"))
        await bruno.ask(room, f"!reschedule {moment(15)}", practice.bot, beginning("Request to move sent"))
        refused = await ana.ask(room, "!confirmar 1", practice.bot, beginning("Isso mudou desde que"))
        assert refused.body.split("\n") == [
            "Isso mudou desde que a lista foi mostrada. Nada foi alterado. Agora:",
            "Suas supervisões com Bruno (UTC)",
            f"1. {span(15, 'pt-BR', brief=True)}, aguardando",
            "Qual? Responda !aceitar 1, com o número.",
        ]
        await ana.ask(room, "!confirmar 1", practice.bot, beginning(f"Confirmado: {span(15, 'pt-BR')}."))
    async with practice.database.transaction() as tx:
        rows = await tx.execute(select(audit_entries.c.action).where(audit_entries.c.resource == "appointment"))
        acts = sorted(row.action for row in rows)
    assert acts == ["appointment.book", "appointment.confirm", "appointment.reschedule"]
