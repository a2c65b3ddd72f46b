"""News of a room: each kind calls exactly those whom it is meant for, so that their phones ring."""

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from bot.news import compose
from bot.notices import render
from supervision.db import Database
from supervision.models import Channel
from supervision.notifications import Notice
from tests.bot.conversations import Conversation, begin

DAY = "2026-11-25T12:00:00+00:00"
Details = Callable[[str, str], dict[str, Any]]  # from the IDs of Ana and Bruno
# What a notification to Ana tells her, or both of them.
KINDS: dict[str, Details] = {
    "pair.archived": lambda _, bruno: {"by": bruno},
    "pair.reopened": lambda *_: {"by": None},
    "pair.expiring": lambda *_: {"by": None, "last": "2026-11-30"},
    "room.left": lambda _, bruno: {"who": bruno},
    "room.name_taken": lambda _, bruno: {"whose": bruno, "bot": "@visavis:example.org"},
    "room.settings": lambda _, bruno: {"by": bruno, "changed": {"retention_days": 30}, "removal": None},
    "room.summary": lambda *_: {},
    "room.introduction": lambda ana, bruno: {"people": [ana, bruno]},
    "identity.changed": lambda _, bruno: {"whose": bruno},
    "identity.confirmed": lambda _, bruno: {"whose": bruno},
    "mailbox.stopped": lambda ana, _: {"whose": ana},
    "retention.announced": lambda ana, bruno: {"people": [ana, bruno], "since": DAY, "until": DAY, "days": 30},
    "retention.done": lambda ana, bruno: {"people": [ana, bruno], "until": DAY},
    "export.ready": lambda *_: {},
    "export.failed": lambda *_: {},
    "export.refused": lambda _, bruno: {"by": bruno},
    "wait.lapsed": lambda *_: {"slot": [DAY, DAY]},
}
BOTH = {"room.introduction", "retention.announced"}
QUIET = {"retention.done"}  # nobody's phone rings for what was announced and is done


@pytest.fixture
async def room(database: Database, now: datetime) -> Conversation:
    return await begin(database, now)


@pytest.mark.parametrize("kind", KINDS)
async def test_news_calls_those_whom_it_is_meant_for(room: Conversation, kind: str) -> None:
    ana, bruno = room.pair.people
    details = KINDS[kind](str(ana.id), str(bruno.id))
    notice = Notice(ana.id, Channel.MATRIX, kind, details, pair_id=room.pair.id, id=uuid.uuid4())
    async with room.database.transaction() as tx:
        message = await compose(tx, notice.as_claimed(now=room.now), room.pair, now=room.now)
    assert message is not None
    content = render(message, ana, room.now)
    called = [] if kind in QUIET else [one.matrix_id for one in ([ana, bruno] if kind in BOTH else [ana])]
    assert content["msgtype"] == ("m.text" if called else "m.notice")
    assert content.get("m.mentions", {"user_ids": []}) == {"user_ids": called}
    assert "{" not in content["body"]
