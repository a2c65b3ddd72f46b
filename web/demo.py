"""Pages that exist in the demo alone: signing in as anybody, and every mail that was sent."""

import asyncio
import email.policy
import email.utils
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import bleach
from aiohttp import web
from markupsafe import Markup, escape

from supervision import people, sign_ins
from supervision.audit import Actor
from supervision.errors import NotFound
from supervision.people import Person
from web import pages, sessions
from web.dashboard import path_id
from web.state import database, now, visitor

MAILS_SHOWN = 100
MAIL_BYTES = 2_000_000
# The mail's own page: nothing is loaded, nothing runs, and a link opens in the window around it.
MAIL_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self';"
    " sandbox allow-top-navigation-by-user-activation"
)
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none';"
    " base-uri 'none'; frame-src 'self'"
)
INVISIBLE = re.compile(r"<(head|style|script|title)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
TAGS = frozenset(
    "a abbr b blockquote body br center code div em h1 h2 h3 hr html i li ol p pre small span strong table tbody td"
    " tfoot th thead tr u ul".split()
)
ATTRIBUTES = {
    "*": ["style", "align", "valign", "width", "height", "bgcolor", "dir", "lang", "role"],
    "a": ["href", "title"],
    "table": ["cellpadding", "cellspacing", "border"],
    "td": ["colspan", "rowspan"],
}


@dataclass(frozen=True)
class DemoPages:
    """The Maildir with every mail that was sent, and the people as whom anybody may sign in."""

    maildir: Path
    people: Sequence[Person]


@dataclass(frozen=True)
class Mail:
    """A mail as the mailbox shows it. `name` is its file name in the Maildir."""

    name: str
    at: datetime
    subject: str
    recipients: str
    sender: str
    text: str
    html: str
    attachments: Sequence[tuple[str, str, int]]


PAGES = web.AppKey("demo", DemoPages)


class _Styles:
    """Keeps a mail's inline styles, for its looks, but nothing that would load something."""

    def sanitize_css(self, style: str) -> str:
        kept = [part for part in style.split(";") if not re.search(r"url|expression|@|\\|<", part, re.IGNORECASE)]
        return ";".join(kept)


async def show_index(request: web.Request) -> web.Response:
    """The demo's people, each with a button that signs in, and the way to the mails."""
    return pages.render(request, "demo.html", people=request.config_dict[PAGES].people)


async def show_sign_in(request: web.Request) -> web.Response:
    return pages.render(request, "demo_sign_in.html", someone=_demo_person(request))


async def sign_in(request: web.Request) -> web.Response:
    """Sign in as that person; works again and again."""
    someone = _demo_person(request)
    seen = visitor(request).actor
    async with database(request).transaction() as tx:
        current = await people.get(tx, someone.id)
        if current.disabled_at is not None:
            raise NotFound
        actor = Actor(someone.id, "demo", seen.ip, seen.user_agent)
        token = await sign_ins.open_session(tx, actor, someone.id, now=now(request))
    response = pages.go("/")
    sessions.sign_in(request, response, token)
    return response


async def show_mailbox(request: web.Request) -> web.Response:
    mails = await asyncio.to_thread(read_all, request.config_dict[PAGES].maildir)
    return pages.render(request, "mailbox.html", mails=mails, now=now(request))


async def show_mail(request: web.Request) -> web.Response:
    mail = await _mail(request)
    response = pages.render(request, "mail.html", mail=mail, text=linked(mail.text))
    response.headers["Content-Security-Policy"] = PAGE_POLICY
    return response


async def show_mail_html(request: web.Request) -> web.Response:
    """The mail's HTML part, sanitised, in a sandbox of its own."""
    mail = await _mail(request)
    body = f'<!doctype html><html><head><meta charset="utf-8"></head>{clean(mail.html)}</html>'
    response = web.Response(text=body, content_type="text/html")
    response.headers["Content-Security-Policy"] = MAIL_POLICY
    return response


def read_all(maildir: Path) -> list[Mail]:
    """The newest mails of a Maildir, the latest first."""
    found = sorted(_files(maildir), key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True)
    return [read(file) for file in found[:MAILS_SHOWN]]


def read(file: Path) -> Mail:
    with file.open("rb") as opened:
        message = BytesParser(EmailMessage, policy=email.policy.default).parsebytes(opened.read(MAIL_BYTES))
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    attachments = [
        (part.get_filename() or part.get_content_type(), part.get_content_type(), len(_payload(part)))
        for part in message.walk()
        if not part.is_multipart() and part not in (text, html)
    ]
    return Mail(
        file.name,
        datetime.fromtimestamp(file.stat().st_mtime, UTC),
        str(message.get("Subject", "")),
        str(message.get("To", "")),
        str(message.get("From", "")),
        _text(text),
        _text(html),
        attachments,
    )


def clean(html: str) -> str:
    """A mail's HTML without scripts, forms, images and anything that loads; links open in the whole window."""
    cleaner = bleach.Cleaner(
        tags=TAGS,
        attributes=ATTRIBUTES,
        protocols={"http", "https", "mailto"},
        strip=True,
        strip_comments=True,
        css_sanitizer=_styles(),
    )
    return bleach.linkify(
        cleaner.clean(INVISIBLE.sub("", html)), callbacks=[_open_on_top], skip_tags=["pre"], parse_email=False
    )


def _open_on_top(attributes: Any, new: bool = False) -> Any:
    return {**attributes, (None, "target"): "_top"}


def _styles() -> Any:
    return _Styles()


def linked(text: str) -> Markup:
    """Plain text with its web addresses as links."""
    pieces = re.split(r"(https?://[^\s<>\"]+)", text)
    return Markup("").join(
        Markup('<a href="{0}">{0}</a>').format(piece) if index % 2 else escape(piece)
        for index, piece in enumerate(pieces)
    )


def _payload(part: Any) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _text(part: Any) -> str:
    return "" if part is None else str(part.get_content())


def _files(maildir: Path) -> list[Path]:
    return [file for folder in ("new", "cur") if (maildir / folder).is_dir() for file in (maildir / folder).iterdir()]


async def _mail(request: web.Request) -> Mail:
    """The mail of that name. Only what the Maildir lists is opened, so a path leads nowhere else."""
    maildir, name = request.config_dict[PAGES].maildir, request.match_info["name"]

    def find() -> Mail:
        for file in _files(maildir):
            if file.name == name:
                return read(file)
        raise NotFound

    return await asyncio.to_thread(find)


def _demo_person(request: web.Request) -> Person:
    wanted: uuid.UUID = path_id(request)
    for someone in request.config_dict[PAGES].people:
        if someone.id == wanted:
            return someone
    raise NotFound


ROUTES = [
    web.get("/demo", show_index),
    web.get("/demo/sign-in/{id}", show_sign_in),
    web.post("/demo/sign-in/{id}", sign_in),
    web.get("/demo/mailbox", show_mailbox),
    web.get("/demo/mailbox/{name}", show_mail),
    web.get("/demo/mailbox/{name}/html", show_mail_html),
]
