"""What reaches beyond one appointment, in a real room: a series, time off with its code, and a setting with its."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from supervision import availability
from supervision.models import appointments
from tests.support.human import Human, Message
from tests.support.practice import Practice


def beginning(words: str) -> Callable[[Message], bool]:
    return lambda message: message.body.startswith(words)


def working_day() -> datetime:
    """Midnight, in UTC, of a working day that is at least three days away."""
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=4)
    return day + timedelta(days=max(0, 7 - day.weekday()) if day.weekday() > 4 else 0)


CODE = re.compile(r"!(?:ausencia|configurar|disponibilidade) (\d{4})")


async def code_of(person: Human, room: str, command: str, bot: str) -> str:
    """The code that the bot's question asks to type."""
    asked = await person.ask(room, command, bot, lambda message: bool(CODE.search(message.body)))
    return str(CODE.findall(asked.body)[0])


async def test_a_series_is_booked_confirmed_and_falls_into_time_off(practice: Practice) -> None:
    ana = await practice.add_person("Ana", ["supervisor"], language="pt-BR", time_zone="UTC")
    bruno = await practice.add_person("Bruno", ["supervisee"], language="en", time_zone="UTC")
    pair = await practice.add_pair(ana, bruno)
    room, day, bot = pair.room_id or "", working_day(), practice.bot

    async def statuses() -> list[str]:
        query = select(appointments.c.status).where(appointments.c.pair_id == pair.id)
        async with practice.database.transaction() as tx:
            return list(await tx.scalars(query.order_by(appointments.c.starts_at)))

    async with practice.phones(pair) as (hers, his):
        sent = await his.ask(room, f"!series {day:%d/%m/%Y} 10:00 weekly 3x", bot, beginning("Request sent: weekly"))
        assert sent.body.count("\n") == 3
        request = await hers.next_message(bot, lambda message: message.body.startswith("Bruno pede"))
        await hers.react(room, request.event_id, "✅")
        await his.next_message(bot, lambda message: "onfirmed" in message.body and "10:00" in message.body)
        assert await statuses() == ["confirmed"] * 3

        second = day + timedelta(days=7)
        code = await code_of(hers, room, f"!ausencia {second:%d/%m/%Y} a {second + timedelta(days=9):%d/%m/%Y}", bot)
        wrong = f"{(int(code) + 1) % 10_000:04}"
        await hers.ask(room, f"!ausencia {wrong} cancelar", bot, beginning("Esse não é o código"))
        await his.ask(room, f"!away {code} cancel", bot, beginning("Only the supervisor takes time off here."))
        assert await statuses() == ["confirmed"] * 3
        await hers.ask(room, f"!ausencia {code} cancelar", bot, beginning("Ausência marcada: "))
        for _ in range(2):
            await his.next_message(bot, beginning("Ana cancelled"))
        assert await statuses() == ["confirmed", "cancelled", "cancelled"]

        code = await code_of(hers, room, "!configurar antecedencia 24h", bot)
        await hers.ask(room, f"!configurar {code}", bot, beginning("Alterado. Agora vale:\n- Marcar: ao menos 1 dia"))
        await hers.ask(room, f"!configurar {code}", bot, beginning("Nenhuma alteração está esperando um código."))
    async with practice.database.transaction() as tx:
        rules = await availability.load(tx, ana.id)
    assert (rules.notice, len(rules.exceptions)) == (1440, 1)
