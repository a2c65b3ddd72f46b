"""Rooms from outside: closed and handed over, and kept by a standby when the first bot's process is gone."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from pydantic import SecretStr

from bot.app import Bot
from embedded.processes import keep_port
from supervision import pairs
from supervision.audit import Actor
from tests.support.bridges import Process
from tests.support.forks import Nursery
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
        async with asyncio.timeout(60):
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


async def configure(practice: Practice, name: str) -> Path:
    """A file with the practice's configuration, for a process with a metrics port of its own."""
    folder = practice.state / name
    folder.mkdir()
    content = practice.config.model_dump(exclude_none=True)
    content["web"]["metrics_port"] = await keep_port(folder / "metrics-port", None, "the metrics")

    def show(value: object) -> str:
        return value.get_secret_value() if isinstance(value, SecretStr) else str(value)

    path = folder / "config.yaml"
    path.write_text(json.dumps(content, default=show))  # JSON is YAML
    path.chmod(0o600)
    return path


async def test_a_standby_process_takes_over_from_one_that_is_killed(practice: Practice, nursery: Nursery) -> None:
    pair = await practice.add_pair()
    room = pair.room_id or ""
    configs = [await configure(practice, name) for name in ("first", "standby")]
    async with practice.phones(pair) as (_, bruno):
        await practice.stop_bot()
        async with Process.run(configs[0], "bot", nursery=nursery) as first:
            assert (await bruno.ask(room, "!slots", practice.bot)).body.startswith("Free with Ana")
            async with Process.run(configs[1], "bot", nursery=nursery) as standby:
                await standby.metrics()  # it has started, and waits
                mark = bruno.mark()
                await first.kill()
                answer = await bruno.ask(room, "!book 1", practice.bot)
                assert answer.body.startswith("Request sent:")
                await bruno.ask(room, "!dashboard", practice.bot)
                assert [one.body for one in bruno.heard(practice.bot, since=mark)][:1] == [answer.body]
                assert "bot.connected" in standby.said
                assert first.said.count("bot.connected") == 1
