"""What holds for a pair, and who settles it: the supervisor's rules, and what she settled for that pair alone."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import update

from supervision import audit, availability, hours, pairs, people, public_holidays
from supervision.audit import Actor
from supervision.db import Transaction, lock_people
from supervision.errors import NotAllowed, NotFound, NotUnderstood
from supervision.hours import Availability
from supervision.models import Approval, Mode, Role
from supervision.models import pairs as pairs_table
from supervision.pairs import Pair

MOST_LENGTHS = 6
LEAST_LENGTH, MOST_LENGTH = 5, 720
CHANGEABLE = {one.name for one in fields(Availability)} - {"exceptions"}


@dataclass(frozen=True)
class Policies:
    """What holds for a pair. `own_*` says that it was settled for this pair, and is not the supervisor's for all."""

    approval: Approval
    lengths: tuple[int, ...]  # minutes; the first is meant where none is named
    own_lengths: bool
    own_approval: bool
    rules: Availability


def approval_of(pair: Pair, rules: Availability) -> Approval:
    """Whether the supervisor is asked before a booking of this pair counts."""
    return pair.approval or rules.approval


async def of(tx: Transaction, pair: Pair) -> Policies:
    """What holds for a pair; both of its people may read it. Raises NotFound where the supervisor has no rules."""
    rules = await availability.load(tx, pair.supervisor.id)
    return Policies(
        approval_of(pair, rules),
        hours.lengths_of(pair, rules),
        own_lengths=pair.lengths is not None,
        own_approval=pair.approval is not None,
        rules=rules,
    )


async def set_pair(
    tx: Transaction,
    actor: Actor,
    pair_id: uuid.UUID,
    *,
    lengths: Sequence[int] | None,
    approval: Approval | None,
    now: datetime,
) -> None:
    """Settle for one pair which lengths can be booked, in minutes, and whether the supervisor is asked.

    None is what the supervisor's rules say. What is booked stays as it is. Only the pair's supervisor may, or the
    operator. Raises PairArchived, and NotUnderstood for lengths that make no sense.
    """
    pair = await pairs.get(tx, pair_id)
    availability.require_own(actor, pair.supervisor.id)
    pair.require_active()
    await tx.execute(
        update(pairs_table)
        .where(pairs_table.c.id == pair_id)
        .values(lengths=None if lengths is None else check_lengths(lengths), approval=approval)
    )
    await audit.record(tx, actor, "pair.settle", "pair", pair_id, now=now)


def check_lengths(lengths: Sequence[int]) -> list[int]:
    """One to six different lengths in minutes. Refused if they are not."""
    if not 1 <= len(lengths) <= MOST_LENGTHS or len(set(lengths)) != len(lengths):
        raise NotUnderstood("refused.lengths", most=MOST_LENGTHS)
    if not all(LEAST_LENGTH <= one <= MOST_LENGTH for one in lengths):
        raise NotUnderstood("refused.out_of_range", name="length", least=LEAST_LENGTH, most=MOST_LENGTH)
    return list(lengths)


async def set_rules(
    tx: Transaction,
    actor: Actor,
    supervisor_id: uuid.UUID,
    changes: Mapping[str, object],
    *,
    now: datetime,
    template: str | None = None,
) -> Availability:
    """Change some of a supervisor's rules, by the names of `Availability`'s fields; the others stay as they are.

    Somebody who has none yet begins with the usual ones; if their appointments are on-line and no place is named,
    `template` (the configuration's `calls.template`) is the place. Another country forgets the subdivision. Only she
    herself may, or the operator. Raises NotUnderstood for a rule that is unknown or makes no sense.
    """
    availability.require_own(actor, supervisor_id)
    if Role.SUPERVISOR not in (await people.get(tx, supervisor_id)).roles:
        raise NotAllowed("refused.supervisor_settles")
    await lock_people(tx, [supervisor_id])  # two changes at once would each write what the other found
    unknown = sorted(set(changes) - CHANGEABLE)
    if unknown:
        raise NotUnderstood("refused.setting", name=unknown[0])
    try:
        rules, new = await availability.load(tx, supervisor_id), False
    except NotFound:
        rules, new = Availability(()), True
    if changes.keys() & {"country", "subdivision"}:
        await public_holidays.open_calendars()
    changed = _change(rules, changes)
    if new and template is not None and changed.mode is Mode.ONLINE and not changed.place:
        changed = replace(changed, place=template)
    await availability.save(tx, actor, supervisor_id, changed, now=now)
    return changed


def _change(rules: Availability, changes: Mapping[str, object]) -> Availability:
    values: dict[str, Any] = dict(changes)
    try:
        if "mode" in values:
            values["mode"] = Mode(values["mode"])
        if "approval" in values:
            values["approval"] = Approval(values["approval"])
    except ValueError as error:
        raise NotUnderstood from error
    if "hours" in values:
        values["hours"] = tuple(values["hours"])
    if "country" in values and values["country"] != rules.country:
        values.setdefault("subdivision", None)
    changed = replace(rules, **values)
    country, subdivision = public_holidays.check_codes(changed.country, changed.subdivision)
    return replace(changed, country=country, subdivision=subdivision)
