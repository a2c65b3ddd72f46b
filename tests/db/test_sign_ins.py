"""How often a sign-in is mailed, and when a mailed one ends: by the asker, not by who else asks."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, select

from supervision import sign_ins
from supervision.audit import Actor
from supervision.db import Database
from supervision.errors import NotUnderstood
from supervision.models import notifications
from supervision.models import sign_ins as table
from supervision.people import Person
from tests.support.sample import add_person

SECRET = "a secret of the tests, and of them alone"


async def ask(database: Database, person: Person, ip: str | None, browser: str, now: datetime, times: int = 1) -> int:
    """Ask that often, and count the mails there are by then."""
    async with database.transaction() as tx:
        for _ in range(times):
            await sign_ins.ask(tx, Actor(None, "web", ip=ip), person.email, browser, now=now)
        return int(await tx.scalar(select(func.count()).where(notifications.c.kind == "sign_in")) or 0)


async def test_a_stranger_s_asking_takes_no_mail_from_the_owner(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    assert await ask(database, ana, "198.51.100.7", "strange", now, times=9) == 5
    assert await ask(database, ana, "198.51.100.7", "strange again", now) == 5
    assert await ask(database, ana, "192.0.2.1", "own", now) == 6
    assert await ask(database, ana, "192.0.2.2", "own", now, times=9) == 10
    later = now + timedelta(hours=1)
    assert await ask(database, ana, "198.51.100.7", "strange", later) == 11


async def test_nobody_gets_more_than_twenty_mails_an_hour(database: Database, now: datetime) -> None:
    ana, bia = [await add_person(database, name, ["supervisor"], now=now) for name in ("Ana", "Bia")]
    for number in range(30):
        mails = await ask(database, ana, f"192.0.2.{number}", f"browser {number}", now)
    assert mails == 20
    assert await ask(database, bia, "192.0.2.1", "browser 1", now) == 21


async def test_five_wrong_codes_end_the_link_too(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    actor = Actor(None, "web", ip="192.0.2.1")
    await ask(database, ana, actor.ip, "own", now)
    async with database.transaction() as tx:
        sign_in_id = await tx.scalar(select(table.c.id))
        assert sign_in_id is not None
        wrong = str((int(sign_ins.code(SECRET, sign_in_id)) + 1) % 10**8).zfill(8)
        for _ in range(5):
            assert await sign_ins.use_code(tx, SECRET, actor, "own", wrong, now=now) is None
        with pytest.raises(NotUnderstood) as refused:
            await sign_ins.use_link(tx, actor, sign_in_id, "own", now=now)
    assert refused.value.key == "refused.link_used_up"
