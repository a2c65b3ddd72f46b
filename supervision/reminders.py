"""Reminders: outbox rows of the future, written in the transaction that confirms or moves an appointment."""

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from sqlalchemy import text

from supervision.db import Ready, Transaction
from supervision.models import Channel
from supervision.notifications import LOW, NORMAL, Notice

KIND = "appointment.reminder"
SOON = 60  # minutes before the start: such a reminder does not wait behind a digest


def plan(
    appointment_id: uuid.UUID,
    revision: int,
    pair_id: uuid.UUID,
    wanted: Mapping[uuid.UUID, Iterable[tuple[Channel, int]]],
    starts_at: datetime,
    *,
    now: datetime,
) -> list[Notice]:
    """What each person wants, as channels and minutes before the start, but for moments that have passed.

    The moment is an instant: across a daylight-saving change the clock reads an hour more or less.
    """
    return [
        Notice(
            person_id,
            channel,
            KIND,
            {"minutes": minutes},
            pair_id=pair_id,
            appointment_id=appointment_id,
            revision=revision,
            priority=NORMAL if minutes <= SOON else LOW,
            send_at=starts_at - timedelta(minutes=minutes),
            expires_at=starts_at,
        )
        for person_id, reminders in wanted.items()
        for channel, minutes in reminders
        if starts_at - timedelta(minutes=minutes) > now
    ]


# By the moment it was planned for: one that quiet hours hold back is about to be told, and is not planned anew.
DROP = Ready(
    text(
        """
    UPDATE notifications SET state = 'superseded', settled_at = :now
    WHERE appointment_id IN (
            SELECT id FROM appointments WHERE (supervisor_id = :person OR supervisee_id = :person) AND starts_at > :now)
        AND person_id = :person AND kind = 'appointment.reminder' AND state = 'pending' AND attempts = 0
        AND expires_at - make_interval(mins => coalesce(CAST(details ->> 'minutes' AS int), 1440)) > :now
    """
    )
)


async def drop(tx: Transaction, person_id: uuid.UUID, *, now: datetime) -> None:
    """Settle all of a person's that are still to come. Needs their lock."""
    await DROP.fetch(tx, {"person": person_id, "now": now})
