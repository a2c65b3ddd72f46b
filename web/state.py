"""What every request can reach: the database, the configuration, the clock, and who is asking."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web

from supervision import pairs
from supervision.audit import Actor
from supervision.config import Config
from supervision.db import Database, Transaction
from supervision.errors import NotAllowed, NotFound
from supervision.models import Role
from supervision.pairs import Pair
from supervision.people import Person
from supervision.sign_ins import Session
from supervision.texts import Reader

Clock = Callable[[], datetime]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def now_utc() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Visitor:
    """Who is asking: a signed-in session or nobody yet, the reader of their pages, the actor of their deeds.

    `token` is the session cookie's value, `browser` that of the cookie which binds a sign-in to the browser that
    asked for it.
    """

    session: Session | None
    token: str | None
    browser: str | None
    reader: Reader
    actor: Actor


@dataclass(frozen=True)
class Parts:
    """What the application was made of."""

    database: Database
    config: Config
    clock: Clock
    demo: bool = False

    @property
    def secret(self) -> str:
        return self.config.secret.get_secret_value()

    @property
    def over_tls(self) -> bool:
        return self.config.web.base_url.startswith("https://")


PARTS = web.AppKey("parts", Parts)
VISITOR = web.RequestKey("visitor", Visitor)


def parts(request: web.Request) -> Parts:
    return request.config_dict[PARTS]


def database(request: web.Request) -> Database:
    return parts(request).database


def now(request: web.Request) -> datetime:
    return parts(request).clock()


def visitor(request: web.Request) -> Visitor:
    return request[VISITOR]


def person(request: web.Request, role: Role | None = None) -> Person:
    """The signed-in person. Raises NotAllowed without a session, or without that role."""
    session = request[VISITOR].session
    if session is None or (role is not None and role not in session.person.roles):
        raise NotAllowed
    return session.person


async def own_pair(tx: Transaction, request: web.Request, pair_id: uuid.UUID) -> Pair:
    """A pair in which the person stands. Anybody else's is as little found as one that never was."""
    pair = await pairs.get(tx, pair_id)
    if person(request).id not in {member.id for member in pair.people}:
        raise NotFound("refused.pair_not_found")
    return pair
