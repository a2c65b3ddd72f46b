"""Codes that somebody types to agree to what they were shown: settings and time off want more than a tap."""

import secrets
from datetime import timedelta
from typing import Any

from bot.replies import Ask, Reply, say
from bot.talks import Talk
from supervision import audit, questions
from supervision.models import Question
from supervision.questions import Asked

LIFETIME = timedelta(hours=1)
MOST_WRONG = 3


async def ask(talk: Talk, kind: Question, details: dict[str, Any]) -> Ask:
    """A question with a new code of four digits. It takes the place of an open one of its kind, whose code is old."""
    before = await questions.last(talk.tx, talk.person.id, talk.pair.id, kind, now=talk.now, unanswered=True)
    if before is not None:
        await questions.answer(talk.tx, before, now=talk.now)
    return Ask(kind, code=f"{secrets.randbelow(10_000):04}", details=details, lifetime=LIFETIME)


async def agree(talk: Talk, kind: Question, code: str) -> Asked | Reply:
    """The open question that the code agrees to, closed by that; or what to say to a wrong or an old one.

    The third wrong code closes it too, so that nobody finds one out by trying.
    """
    asked = await questions.last(talk.tx, talk.person.id, talk.pair.id, kind, now=talk.now, unanswered=True)
    if asked is None or asked.code is None:
        return await _wrong(talk, "code.none")
    if secrets.compare_digest(asked.code, code):
        await questions.answer(talk.tx, asked, now=talk.now)
        return asked
    wrong = int(asked.details.get("wrong", 0)) + 1
    await questions.note(talk.tx, asked, {**asked.details, "wrong": wrong})
    if wrong < MOST_WRONG:
        return await _wrong(talk, "code.wrong")
    await questions.answer(talk.tx, asked, now=talk.now)
    return await _wrong(talk, "code.closed")


async def _wrong(talk: Talk, key: str) -> Reply:
    """Say no to a code, and note that it was tried."""
    await audit.record(talk.tx, talk.actor, "command", "pair", talk.pair.id, now=talk.now, success=False, reason=key)
    return say(key)
