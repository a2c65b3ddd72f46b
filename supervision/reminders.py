"""Reminders: outbox rows of the future, written in the transaction that confirms or moves an appointment."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from supervision.models import Channel
from supervision.notifications import LOW, Notice

# An instant, not a wall-clock time: across a daylight-saving change the clock reads an hour more or less.
BEFORE = timedelta(hours=24)


def plan(
    appointment_id: uuid.UUID,
    revision: int,
    pair_id: uuid.UUID,
    person_ids: Sequence[uuid.UUID],
    starts_at: datetime,
    *,
    now: datetime,
) -> list[Notice]:
    """A mail to each person 24 hours before, unless that moment has passed; worthless once it has begun."""
    send_at = starts_at - BEFORE
    if send_at <= now:
        return []
    return [
        Notice(
            person_id,
            Channel.MAIL,
            "appointment.reminder",
            pair_id=pair_id,
            appointment_id=appointment_id,
            revision=revision,
            priority=LOW,
            send_at=send_at,
            expires_at=starts_at,
        )
        for person_id in person_ids
    ]
