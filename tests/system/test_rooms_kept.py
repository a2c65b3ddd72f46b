"""Rooms from outside: closed and handed over, and kept by a standby when the first bot's process is gone."""

import asyncio
from datetime import UTC, datetime
from urllib.parse import quote

from bot.app import Bot
from supervision import pairs
from supervision.audit import Actor
from tests.support.human import HomeserverRefused, Human
from tests.support.practice import Practice

OPERATOR = Actor(None, "cli")


async def answer_to(person: Human, method: str, room_id: str, act: str) -> int:
    """The HTTP status with which the homeserver answers."""
    try:
        await person.request(method, f"/rooms/{quote(room_id, safe='')}/{act}", {} if method == "POST" else None)
    except HomeserverRefused as refused:
        return refused.status
    return 200


async def test_another_supervisor_takes_over_and_sees_nothing_of_the_old_room(practice: Practice) -> None:
    pair = await practice.add_pair()
    old = pair.room_id or ""
    clara = await practice.add_person("Clara", ["supervisor"], language="en", time_zone="UTC")
    async with practice.phones(pair) as (ana, bruno), practice.phone(clara) as new:
        await ana.send_text(old, "between the two of us")
        async with practice.database.transaction() as tx:
            made = await pairs.hand_over(tx, OPERATOR, pair.id, clara, now=datetime.now(UTC))
        await bruno.next_message(practice.bot, lambda one: one.body.startswith("This room was archived."))
        fresh = (await practice.wait_for_room(made)).room_id or ""
        await new.join(fresh)
        await new.next_message(practice.bot, lambda one: "!help" in one.body)
        assert [await answer_to(new, "GET", old, act) for act in ("messages?dir=b", "state", "members")] == [403] * 3
        assert await answer_to(new, "POST", old, "join") == 403
        assert new.heard(ana.user_id) == new.heard(bruno.user_id) == []
        async with asyncio.timeout(20):
            while True:
                if await is_closed(bruno, old):
                    break
                await asyncio.sleep(0.1)
        assert await answer_to(bruno, "GET", old, "messages?dir=b") == 200


async def is_closed(person: Human, room_id: str) -> bool:
    """Whether nothing can be written there."""
    try:
        await person.send_raw(room_id, "m.room.message", {"msgtype": "m.notice", "body": "x"}, encrypted=False)
    except HomeserverRefused as refused:
        return refused.status == 403
    return False


async def test_a_standby_takes_over_where_the_first_is_gone(practice: Practice) -> None:
    pair = await practice.add_pair()
    async with practice.phones(pair) as (_, bruno):
        standby = Bot(practice.database, practice.config)
        running = asyncio.create_task(standby.run())
        try:
            await asyncio.sleep(0.5)
            assert not standby.ready.is_set()
            await practice.stop_bot()
            answer = await bruno.ask(pair.room_id or "", "!slots", practice.bot)
            assert answer.body.startswith("Free with Ana")
            assert standby.ready.is_set()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
