"""Closing a pair's room from within: `!archive`, by its supervisor, with a typed code."""

from bot import codes
from bot.commands import Archive
from bot.replies import Line, Reply, say
from bot.talks import Talk
from supervision import pairs, queries
from supervision.errors import NotAllowed
from supervision.models import Question


async def part(talk: Talk, command: Archive) -> Reply:
    """Say what an archive does and ask for a code; or, with that, archive the pair, of which news tells the other."""
    if not talk.supervises:
        raise NotAllowed("refused.supervisor_archives")
    if command.code is None:
        return await _ask(talk)
    asked = await codes.agree(talk, Question.CONFIRM_ARCHIVE, command.code)
    if isinstance(asked, Reply):
        return asked
    await pairs.archive(talk.tx, talk.actor, talk.pair.id, now=talk.now)
    return say("archive.done")


async def _ask(talk: Talk) -> Reply:
    coming = await queries.coming(talk.tx, talk.person.id, now=talk.now, pair_id=talk.pair.id)
    ask = await codes.ask(talk, Question.CONFIRM_ARCHIVE, {})
    booked = (Line("archive.booked", {"count": len(coming)}),) if coming else ()
    return Reply((Line("archive.what"), *booked, Line("archive.ask", {"code": ask.code})), ask)
