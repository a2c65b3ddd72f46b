"""The web application: routes, middlewares, and serving them on their two ports."""

import asyncio

from aiohttp import web

from supervision.config import Config
from supervision.db import Database
from web import (
    absences,
    account,
    admin,
    assets,
    bookings,
    dashboard,
    demo,
    exports,
    feeds,
    forms,
    health,
    hours,
    middleware,
    openapi,
    outside,
    policies,
    reauth,
    rooms,
    signing_in,
    waits,
    welcome,
    wishes,
)
from web.demo import DemoPages
from web.limits import Limit
from web.metrics import METRICS, Metrics, make_metrics_app
from web.serving import serve
from web.state import PARTS, Clock, Parts, now_utc

BODY_BYTES = 64 * 1024
# Generous: a person's own script may read everything it needs in one go.
PERSON_BURST, PERSON_PER_SECOND = 600, 10
ADDRESS_BURST, ADDRESS_PER_SECOND = 60, 0.5


def make_app(
    database: Database,
    config: Config,
    *,
    demo: DemoPages | None = None,
    clock: Clock = now_utc,
    metrics: Metrics | None = None,
) -> web.Application:
    """The application on that database. Any number of processes may serve it side by side."""
    app = web.Application(
        client_max_size=BODY_BYTES,
        middlewares=[middleware.measure, middleware.explain, middleware.meet, middleware.guard, reauth.lead],
    )
    app[PARTS] = Parts(database, config, clock, demo is not None)
    app[METRICS] = metrics or Metrics()
    app[middleware.PEOPLE] = Limit(PERSON_BURST, PERSON_PER_SECOND)
    app[signing_in.ADDRESSES] = Limit(ADDRESS_BURST, ADDRESS_PER_SECOND)
    app[feeds.READERS] = Limit(feeds.BURST, feeds.PER_SECOND)
    app.on_response_prepare.append(middleware.put_headers)
    parts = (
        health,
        assets,
        openapi,
        signing_in,
        reauth,
        exports,
        dashboard,
        forms,
        bookings,
        waits,
        hours,
        outside,
        policies,
        rooms,
        absences,
        feeds,
        wishes,
        welcome,
        account,
        admin,
    )
    for part in parts:
        app.add_routes(part.ROUTES)
    if demo is not None:
        add_demo(app, demo)
    return app


def add_demo(app: web.Application, pages: DemoPages) -> None:
    app[demo.PAGES] = pages
    app.add_routes(demo.ROUTES)


async def run(
    database: Database,
    config: Config,
    *,
    demo: DemoPages | None = None,
    clock: Clock = now_utc,
    metrics: Metrics | None = None,
    started: asyncio.Event | None = None,
) -> None:
    """Serve pages, API and metrics until cancelled; what is under way then may end.

    `started` is set when all ports answer. Raises PortUnavailable for a port that cannot be had.
    """
    metrics = metrics or Metrics()
    app = make_app(database, config, demo=demo, clock=clock, metrics=metrics)
    served = [
        (make_metrics_app(database, metrics, clock=clock), config.web.metrics_listen, config.web.metrics_port),
        (app, config.web.listen, config.web.port),
    ]
    await serve(served, started)
