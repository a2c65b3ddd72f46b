"""What is not said in the room because its person wants it so: not at all, or not in their quiet hours."""

from datetime import datetime
from typing import Literal

from bot.news import Message, compose
from supervision import notifications, preferences
from supervision.db import Transaction
from supervision.models import Channel
from supervision.notifications import Notification
from supervision.pairs import Pair

Kept = Literal["unwanted", "quiet"]


async def keep_back(
    tx: Transaction, notification: Notification, pair: Pair, message: Message, *, now: datetime
) -> Kept | None:
    """Settle or put off what its person does not want to hear now; None where it is to be said.

    A question is put off only if it can still be answered when the quiet hours end, and news only if it is still
    worth telling then. What is in the room already, but for its reactions, is neither.
    """
    kind = notification.kind
    if notification.matrix_event_id is not None or not preferences.may_be_kept_back(kind):
        return None
    person = pair.member(notification.person_id)
    wishes = await preferences.of(tx, person.id)
    if not preferences.is_wanted(wishes, Channel.MATRIX, kind):
        await notifications.settle_unwanted(tx, notification.id, now=now)
        return "unwanted"
    until = preferences.hold_back(wishes, person.zone, kind, now=now, starts_at=message.starts_at)
    if until is None or not await _can_wait(tx, notification, pair, message, until):
        return None
    await notifications.postpone(tx, notification, until)
    return "quiet"


async def _can_wait(tx: Transaction, notification: Notification, pair: Pair, message: Message, until: datetime) -> bool:
    later = await compose(tx, notification, pair, now=until)
    return later is not None and (message.asked is None or later.asked is not None)
