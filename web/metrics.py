"""Figures for Prometheus: this process, its HTTP durations, and the outbox and the rooms as they are when asked."""

import asyncio
import math
from collections.abc import Iterable

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from supervision import presences, queries, unreads
from supervision.db import Database
from web.state import Clock, now_utc

log = structlog.get_logger()

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DATABASE_SECONDS = 5.0


class Metrics:
    """One registry, and what the web application adds to it."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        ProcessCollector(namespace="visavis", registry=self.registry)
        self.durations = Histogram(
            "visavis_http_request_duration_seconds",
            "Time until the answer was ready, by route template",
            ["method", "route", "status"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.queue = Gauge(
            "visavis_notifications", "Unsettled and parked notifications", ["channel", "state"], registry=self.registry
        )
        self.due = Gauge(
            "visavis_notifications_due",
            "Notifications that want to be sent now, by priority: 1 is the most urgent",
            ["channel", "priority"],
            registry=self.registry,
        )
        self.age = Gauge(
            "visavis_notifications_oldest_due_seconds",
            "How long the oldest due notification has waited",
            ["channel", "priority"],
            registry=self.registry,
        )
        self.online = Gauge(
            "visavis_people_online",
            "People who are online, as the homeserver tells; NaN where it tells nothing",
            registry=self.registry,
        )
        self.online.set(math.nan)
        self.unread = Gauge("visavis_unread_messages", "Messages in rooms that wait to be read", registry=self.registry)
        self.database = Gauge(
            "visavis_database_up", "Whether the database answered this scrape", registry=self.registry
        )

    def add(self, collectors: Iterable[Collector]) -> None:
        """Show these too: what other parts of this process count."""
        for collector in collectors:
            self.registry.register(collector)

    def observe(self, request: web.Request, status: int, seconds: float) -> None:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "unmatched"
        if route.startswith("/static/"):
            route = "/static/{name}"
        method = request.method if request.method in METHODS else "other"
        self.durations.labels(method, route, str(status)).observe(seconds)

    async def read_queues(self, database: Database, clock: Clock) -> None:
        """Take the outbox's figures now; without the database only `visavis_database_up` changes."""
        try:
            async with asyncio.timeout(DATABASE_SECONDS), database.transaction() as tx:
                found = await queries.queues(tx, now=clock())
                online, unread = await presences.online(tx, now=clock()), await unreads.total(tx)
        except (OSError, SQLAlchemyError, TimeoutError) as error:
            log.warning("metrics.database_away", error=type(error).__name__)
            self.database.set(0)
            return
        self.database.set(1)
        self.online.set(math.nan if online is None else online)
        self.unread.set(unread)
        for queue in found:
            for state in ("pending", "waiting", "parked"):
                self.queue.labels(queue.channel, state).set(queue.states.get(state, 0))
            for priority, due in queue.due.items():
                self.due.labels(queue.channel, str(priority)).set(due.count)
                self.age.labels(queue.channel, str(priority)).set(due.oldest_seconds)


METRICS = web.AppKey("metrics", Metrics)


def make_metrics_app(database: Database, metrics: Metrics, *, clock: Clock = now_utc) -> web.Application:
    """`GET /metrics` in the text format, and nothing else; it belongs on a port that only the operator reaches."""

    async def show(request: web.Request) -> web.Response:
        await metrics.read_queues(database, clock)
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    app = web.Application()
    app.router.add_get("/metrics", show)
    return app
