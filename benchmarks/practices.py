"""Databases of a practice with 200 supervisors and 2,000 pairs, filled with as many appointments as asked for.

They are written by SQL, as five years of our own code would have left them: appointments with their holds,
notifications and audit entries, the last eight weeks of them still to come. The clock stands still at `NOW`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

import migrations
from embedded.postgresql import PostgreSQL, start_postgresql
from supervision import pairs, people
from supervision.db import Database
from supervision.pairs import Pair

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)  # a Monday, 09:00 in São Paulo
SUPERVISORS = 200
BUSY = 300  # of supervisor 0, in the 60 days after NOW
TEMPLATE = "visavis"

PEOPLE = f"""
    INSERT INTO bots (matrix_id) VALUES ('@visavis:example.org');
    INSERT INTO people (id, name, email, matrix_id, language, time_zone, roles, created_at)
    SELECT md5(role || n)::uuid, role || ' ' || n, role || '-' || n || '@example.org',
        '@' || role || '-' || n || ':example.org', 'pt-BR', 'America/Sao_Paulo', ARRAY[role], '{NOW}'
    FROM (VALUES ('supervisor', {SUPERVISORS}), ('supervisee', {SUPERVISORS * 10})) AS roles (role, number),
        generate_series(0, number - 1) AS n;
    INSERT INTO pairs (id, supervisor_id, supervisee_id, status, bot, room_id, room_token, created_at)
    SELECT md5('pair' || n)::uuid, md5('supervisor' || n / 10)::uuid, md5('supervisee' || n)::uuid, 'active',
        '@visavis:example.org', '!' || n || ':example.org', gen_random_uuid(), '{NOW}'
    FROM generate_series(0, {SUPERVISORS * 10 - 1}) AS n;
    INSERT INTO availabilities (supervisor_id, length_minutes, grid_minutes, buffer_before_minutes,
        buffer_after_minutes, notice_minutes, horizon_days, mode, place)
    SELECT md5('supervisor' || n)::uuid, 50, 60, 0, 10, 120, 60, 'online', 'https://meet.example.org/practice'
    FROM generate_series(0, {SUPERVISORS - 1}) AS n;
    INSERT INTO weekly_hours (supervisor_id, weekday, starts, ends)
    SELECT supervisor_id, weekday, '08:00', '20:00' FROM availabilities, generate_series(0, 5) AS weekday;
"""  # noqa: S608 - numbers and a date of our own

# Appointment n is the m-th of supervisor s; 35 hours a week, 260 weeks, the m-th of M in the hour m * 9100 / M.
# São Paulo has kept UTC-3 all this time. Supervisor 0 has her coming weeks from BUSY_WEEKS instead.
PAST_AND_COMING = f"""
    CREATE UNLOGGED TABLE history AS
    SELECT n, md5('appointment' || n)::uuid AS id, md5('pair' || pair)::uuid AS pair_id,
        md5('supervisor' || pair / 10)::uuid AS supervisor_id, md5('supervisee' || pair)::uuid AS supervisee_id,
        starts_at, starts_at + interval '50 minutes' AS ends_at, starts_at - interval '6 days' AS booked_at,
        CASE WHEN starts_at > '{NOW}' THEN CASE WHEN dice < 10 THEN 'requested' ELSE 'confirmed' END
            WHEN dice < 10 THEN 'cancelled' WHEN dice < 14 THEN 'declined' WHEN dice < 16 THEN 'no_show'
            ELSE 'completed' END AS status
    FROM (
        SELECT n, s * 10 + m % 10 AS pair, abs(hashint8(n) % 100) AS dice, timestamptz '{NOW}' - interval '9 hours'
            + (hour / 35 - 252) * interval '7 days' + (hour % 35 / 7) * interval '1 day'
            + (ARRAY[9, 10, 11, 14, 15, 16, 17])[hour % 7 + 1] * interval '1 hour' AS starts_at
        FROM (SELECT n, n % {SUPERVISORS} AS s, n / {SUPERVISORS} AS m,
                n / {SUPERVISORS} * 9100 / ($1::bigint / {SUPERVISORS}) AS hour
            FROM generate_series(0, $1::bigint - 1) AS n) AS numbered
        WHERE s > 0 OR hour < 252 * 35
    ) AS dated
"""  # noqa: S608
# Every other hour from Monday to Saturday, from tomorrow on.
BUSY_WEEKS = f"""
    INSERT INTO history
    SELECT n, md5('busy' || n)::uuid, md5('pair' || n % 10)::uuid, md5('supervisor0')::uuid,
        md5('supervisee' || n % 10)::uuid, starts_at, starts_at + interval '50 minutes',
        starts_at - interval '61 days', 'confirmed'
    FROM (SELECT n, timestamptz '{NOW}' - interval '9 hours' + ((n / 6 + 1) / 6) * interval '7 days'
            + ((n / 6 + 1) % 6) * interval '1 day' + (8 + 2 * (n % 6)) * interval '1 hour' AS starts_at
        FROM generate_series(0, {BUSY - 1}) AS n) AS dated
"""  # noqa: S608

APPOINTMENTS = """
    INSERT INTO appointments (id, pair_id, supervisor_id, supervisee_id, starts_at, ends_at, status, revision, mode,
        place, buffer_after_minutes, booked_by, answer_by, created_at, updated_at)
    SELECT id, pair_id, supervisor_id, supervisee_id, starts_at, ends_at, status,
        CASE status WHEN 'requested' THEN 0 WHEN 'cancelled' THEN 2 ELSE 1 END, 'online',
        'https://meet.example.org/' || md5('place' || id), 10, supervisee_id, booked_at + interval '2 days',
        booked_at, booked_at + interval '1 hour'
    FROM history ORDER BY booked_at
"""
HOLDS = """
    INSERT INTO holds (appointment_id, person_id, during)
    SELECT id, person_id, tstzrange(starts_at, until)
    FROM history, LATERAL (VALUES (supervisor_id, ends_at + interval '10 minutes'), (supervisee_id, ends_at))
        AS held (person_id, until)
    WHERE status NOT IN ('cancelled', 'declined') ORDER BY booked_at
"""
NOTIFICATIONS = f"""
    INSERT INTO notifications (id, person_id, pair_id, appointment_id, revision, channel, kind, details, priority,
        state, created_at, send_at, expires_at, next_try_at, attempts, settled_at, matrix_event_id)
    SELECT md5('notification' || history.id || told)::uuid,
        CASE WHEN told.to_supervisor THEN supervisor_id ELSE supervisee_id END, pair_id, history.id, told.revision,
        told.channel, 'appointment.' || told.kind,
        jsonb_build_object('by', CASE WHEN told.revision = 1 THEN supervisor_id ELSE supervisee_id END),
        CASE WHEN told.kind = 'reminder' THEN 3 ELSE 2 END, outcome.state, booked_at, outcome.send_at,
        CASE WHEN told.kind = 'reminder' THEN starts_at END, outcome.send_at,
        CASE WHEN outcome.state = 'sent' THEN 1 ELSE 0 END,
        CASE WHEN outcome.state <> 'pending' THEN outcome.send_at + interval '1 second' END,
        CASE WHEN told.channel = 'matrix' THEN '$' || md5('event' || history.id || told) || left(md5(told::text), 11)
            END
    FROM history, LATERAL (VALUES
            ('requested', 0, 'matrix', true), ('requested', 0, 'mail', true),
            ('confirmed', 1, 'matrix', false), ('confirmed', 1, 'mail', true), ('confirmed', 1, 'mail', false),
            ('reminder', 1, 'mail', true), ('reminder', 1, 'mail', false),
            ('cancelled', 2, 'matrix', true), ('cancelled', 2, 'mail', true), ('cancelled', 2, 'mail', false),
            ('declined', 1, 'matrix', false), ('declined', 1, 'mail', true), ('declined', 1, 'mail', false)
        ) AS told (kind, revision, channel, to_supervisor), LATERAL (
            SELECT CASE WHEN told.kind <> 'reminder' THEN 'sent' WHEN status = 'cancelled' THEN 'superseded'
                WHEN starts_at - interval '1 day' > '{NOW}' THEN 'pending' ELSE 'sent' END AS state,
                CASE WHEN told.kind = 'reminder' THEN starts_at - interval '1 day' ELSE booked_at END AS send_at
        ) AS outcome
    WHERE told.kind = 'requested' OR told.kind = status
        OR (told.kind IN ('confirmed', 'reminder') AND status NOT IN ('requested', 'declined'))
    ORDER BY booked_at, history.id
"""  # noqa: S608
AUDIT_ENTRIES = """
    INSERT INTO audit_entries (at, actor_id, via, action, resource, resource_id, success, device)
    SELECT booked_at + did.after, CASE did.by WHEN 'supervisor' THEN supervisor_id WHEN 'supervisee' THEN supervisee_id
        END, did.via, 'appointment.' || did.action, 'appointment', id, true,
        CASE WHEN did.via = 'matrix' THEN left(md5(pair_id::text), 10) END
    FROM history, LATERAL (VALUES
            ('book', 'supervisee', 'matrix', interval '0'), ('confirm', 'supervisor', 'reaction', interval '1 hour'),
            ('decline', 'supervisor', 'reaction', interval '1 hour'),
            ('cancel', 'supervisee', 'matrix', interval '1 day'), ('complete', '', 'system', interval '7 days')
        ) AS did (action, by, via, after)
    WHERE did.action = 'book' OR (did.action = 'decline') = (status = 'declined') AND (
        did.action = 'decline' OR did.action = 'confirm' AND status <> 'requested'
        OR did.action = 'cancel' AND status = 'cancelled'
        OR did.action = 'complete' AND status IN ('completed', 'no_show'))
    ORDER BY booked_at
"""

# What is slower to keep up to date row by row than to build in the end: constraints that exclude, plain indexes.
EXCLUSIONS = """
    SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname),
        format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE contype = 'x' AND conrelid = $1::text::regclass
"""
INDEXES = """
    SELECT format('DROP INDEX %s', indexrelid::regclass), pg_get_indexdef(indexrelid)
    FROM pg_index WHERE indrelid = $1::text::regclass
        AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
"""


@asynccontextmanager
async def running_server(state: Path, *, durable: bool = False) -> AsyncIterator[PostgreSQL]:
    """An embedded server with our schema in its template database."""
    server = await start_postgresql(state / ("durable" if durable else "fleeting"), durable=durable)
    try:
        await migrations.upgrade(server.dsn(TEMPLATE, "visavis_owner"), server.dsn(TEMPLATE, "visavis_app"))
        yield server
    finally:
        await server.stop()


async def make_practice(server: PostgreSQL, appointments: int) -> str:
    """Make a database with so many appointments (a multiple of 200), unless it is there; returns its name."""
    name = f"practice_{appointments}_{migrations.head()}"
    owner = await asyncpg.connect(server.url("postgres", "postgres"))
    try:
        if not await owner.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await clone(server, TEMPLATE, f"{name}_filling")
            await fill(server.url(f"{name}_filling", "postgres"), appointments)
            await owner.execute(f"ALTER DATABASE {name}_filling RENAME TO {name}")
            await owner.execute("CHECKPOINT")
    finally:
        await owner.close()
    return name


async def clone(server: PostgreSQL, source: str, name: str) -> str:
    """Copy a database that nobody is connected to, over one of that name if it is there; returns the name."""
    owner = await asyncpg.connect(server.url("postgres", "postgres"))
    try:
        await owner.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await owner.execute(f"CREATE DATABASE {name} TEMPLATE {source} OWNER visavis_owner")
    finally:
        await owner.close()
    return name


async def fill(url: str, appointments: int) -> None:
    """Write everything, a table after the other in two connections, and gather what the planner wants to know."""
    async with filling(url) as connection:
        await connection.execute(PEOPLE)
        await connection.execute(PAST_AND_COMING.replace("$1::bigint", str(appointments)))
        await connection.execute(BUSY_WEEKS)
    await asyncio.gather(
        fill_tables(url, [("notifications", NOTIFICATIONS)]),
        fill_tables(url, [("appointments", APPOINTMENTS), ("holds", HOLDS), ("audit_entries", AUDIT_ENTRIES)]),
    )
    async with filling(url) as connection:
        await connection.execute("DROP TABLE history")
        await connection.execute("VACUUM (ANALYZE)")


async def fill_tables(url: str, tables: Sequence[tuple[str, str]]) -> None:
    async with filling(url) as connection:
        for name, statement in tables:
            set_aside = [*await connection.fetch(EXCLUSIONS, name), *await connection.fetch(INDEXES, name)]
            for drop, _ in set_aside:
                await connection.execute(drop)
            await connection.execute(statement)
            for _, make in set_aside:
                await connection.execute(make)


@asynccontextmanager
async def filling(url: str) -> AsyncIterator[Any]:
    """A superuser's connection that checks no foreign keys."""
    settings = {"session_replication_role": "replica", "maintenance_work_mem": "512MB", "work_mem": "256MB"}
    connection = await asyncpg.connect(url, server_settings=settings, command_timeout=1800)
    try:
        yield connection
    finally:
        await connection.close()


def open_database(server: PostgreSQL, name: str, *, pool_size: int = 1) -> Database:
    """The application's role on that database."""
    return Database(server.dsn(name, "visavis_app"), pool_size=pool_size)


async def pairs_of(database: Database, supervisor: int) -> list[Pair]:
    """The ten pairs of that supervisor."""
    async with database.transaction() as tx:
        person = await people.by_email(tx, f"supervisor-{supervisor}@example.org")
        return await pairs.list_of(tx, person.id)
