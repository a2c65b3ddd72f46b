"""Taking the room home, by words: whoever asks types a code, and so does the other, unless one word is enough here."""

from functools import partial

from bot import codes
from bot.commands import Export
from bot.replies import Line, Reply, say
from bot.talks import Talk
from supervision import exports, questions
from supervision.exports import ANSWER_TIME
from supervision.models import Consent, Question
from supervision.texts import Moment


async def take(talk: Talk, command: Export) -> Reply:
    """Ask for an export, agree to one with its code, or say no to what the other asked for. Raises Refused."""
    if command.refuse:
        return await _refuse(talk)
    if command.code is not None:
        return await _type(talk, command.code)
    await exports.check(talk.tx, talk.actor, talk.pair.id, now=talk.now)
    both = await _wants_both(talk)
    ask = await codes.ask(talk, Question.CONFIRM_EXPORT, {})
    says = Line("export.ask_both" if both else "export.ask_one", {"other": talk.other.name})
    return Reply((says, Line("export.type", {"code": ask.code})), ask)


async def _type(talk: Talk, code: str) -> Reply:
    """A code: of the other's question to this person, or of their own. The one that it fits is meant."""
    kind = await _meant(talk, code)
    asked = await codes.agree(talk, kind, code)
    if not isinstance(asked, Reply):
        return await (_ask_other(talk) if kind is Question.CONFIRM_EXPORT else _agree(talk))
    wrong = kind is Question.AGREE_EXPORT and asked.lines[0].key == "code.closed"
    if wrong:  # three times: nobody is left waiting for three days
        await exports.refused(talk.tx, talk.actor, talk.pair, now=talk.now, reason="code.closed")
    return asked


async def _meant(talk: Talk, code: str) -> Question:
    """One's own is looked at first, and the other's is left unlocked where that fits: see `exports.forget_room`."""
    last = partial(questions.last, talk.tx, talk.person.id, talk.pair.id, now=talk.now, unanswered=True)
    own = await last(Question.CONFIRM_EXPORT)
    if (own is not None and own.code == code) or await last(Question.AGREE_EXPORT) is None:
        return Question.CONFIRM_EXPORT
    return Question.AGREE_EXPORT


async def _ask_other(talk: Talk) -> Reply:
    made = await exports.ask(talk.tx, talk.actor, talk.pair.id, default=talk.rooms.export_consent, now=talk.now)
    if made is not None:
        return say("export.begun", url=_page(talk))
    return say("export.other_asked", other=talk.other.name, until=Moment(talk.now + ANSWER_TIME))


async def _agree(talk: Talk) -> Reply:
    await exports.agreed(talk.tx, talk.actor, talk.pair, now=talk.now)
    return say("export.agreed", other=talk.other.name)


async def _refuse(talk: Talk) -> Reply:
    """No to the other's wish; or, where they have none, one's own is taken back."""
    own = await exports.pending(talk.tx, talk.pair, talk.person.id, now=talk.now)
    if own is not None and await exports.asked(talk.tx, talk.pair.id, talk.person.id, now=talk.now) is None:
        await exports.withdraw(talk.tx, talk.actor, talk.pair.id, now=talk.now)
        return say("export.withdrawn", other=talk.other.name)
    await exports.refuse(talk.tx, talk.actor, talk.pair.id, now=talk.now)
    return say("export.declined", other=talk.other.name)


async def _wants_both(talk: Talk) -> bool:
    return await exports.consent(talk.tx, talk.pair.id, talk.rooms.export_consent) is Consent.BOTH


def _page(talk: Talk) -> str:
    return f"{talk.dashboard}/rooms/{talk.pair.id}/export"
