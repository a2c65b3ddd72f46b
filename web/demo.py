"""Pages that exist in the demo alone: signing in as anybody, every mail that was sent, and every mail there can be."""

import asyncio
import email.policy
import email.utils
import re
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import bleach
from aiohttp import web
from markupsafe import Markup, escape

from supervision import people, sign_ins
from supervision.audit import Actor
from supervision.errors import NotFound
from supervision.people import LANGUAGES, Person
from web import pages, sessions
from web.dashboard import path_id
from web.state import database, now, visitor

MAILS_SHOWN = 100
MAIL_BYTES = 2_000_000
ANSWERS = ("accept", "tentative", "decline")
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
    """The Maildir with every mail that was sent, and the people as whom anybody may sign in.

    `preview` writes a mail of one of the `kinds` in a language. `answer` sends what a calendar answers to a mail's
    invitation: `accept`, `tentative` or `decline`; False where nobody took it.
    """

    maildir: Path
    people: Sequence[Person]
    kinds: Sequence[str] = ()
    preview: Callable[[str, str], bytes] | None = None
    answer: Callable[[bytes, str], Awaitable[bool]] | None = None


@dataclass(frozen=True)
class Mail:
    """A mail as the mailbox shows it. `name` is its file name in the Maildir.

    `entry` is its calendar entry, and `invites` whether a calendar would show buttons to answer it.
    """

    name: str
    at: datetime
    subject: str
    recipients: str
    sender: str
    text: str
    html: str
    attachments: Sequence[tuple[str, str, int]]
    entry: str
    invites: bool


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
    mail = parse(*await _mail(request))
    here = f"/demo/mailbox/{quote(mail.name, safe='')}"
    can_answer = mail.invites and request.config_dict[PAGES].answer is not None
    return _page(request, mail, here, back="/demo/mailbox", answers=ANSWERS if can_answer else ())


async def answer(request: web.Request) -> web.Response:
    """Do what the recipient's calendar does when they answer the mail's invitation there."""
    name, _, content = await _mail(request)
    send, word = request.config_dict[PAGES].answer, request.match_info["answer"]
    if send is None or word not in ANSWERS:
        raise NotFound
    taken = await send(content, word)
    return pages.go(f"/demo/mailbox/{quote(name, safe='')}", f"answer_{word}" if taken else "answer_refused")


async def show_mail_html(request: web.Request) -> web.Response:
    """The mail's HTML part, sanitised, in a sandbox of its own."""
    mail = parse(*await _mail(request))
    return _framed(f'<!doctype html><html><head><meta charset="utf-8"></head>{clean(mail.html)}</html>')


async def show_previews(request: web.Request) -> web.Response:
    """Every mail that there can be, by its subject in each language."""
    shown, at = request.config_dict[PAGES], now(request)

    def write() -> list[tuple[str, list[tuple[str, str]]]]:
        return [(kind, [(one, _write(shown, kind, one, at).subject) for one in LANGUAGES]) for kind in shown.kinds]

    return pages.render(request, "previews.html", previews=await asyncio.to_thread(write))


async def show_preview(request: web.Request) -> web.Response:
    mail = await _preview(request)
    return _page(request, mail, f"/demo/mails/{mail.name}", back="/demo/mails", answers=())


async def show_preview_html(request: web.Request) -> web.Response:
    """Our own HTML as mail programs get it, dark mode included."""
    mail = await _preview(request)
    return _framed(mail.html.replace("<head>", '<head><base target="_top">', 1))


def _page(request: web.Request, mail: Mail, here: str, *, back: str, answers: Sequence[str]) -> web.Response:
    response = pages.render(
        request, "mail.html", mail=mail, text=linked(mail.text), here=here, back=back, answers=answers
    )
    response.headers["Content-Security-Policy"] = PAGE_POLICY
    return response


def _framed(html: str) -> web.Response:
    response = web.Response(text=html, content_type="text/html")
    response.headers["Content-Security-Policy"] = MAIL_POLICY
    return response


def read_all(maildir: Path) -> list[Mail]:
    """The newest mails of a Maildir, the latest first."""
    found = sorted(_files(maildir), key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True)
    return [read(file) for file in found[:MAILS_SHOWN]]


def read(file: Path) -> Mail:
    return parse(file.name, *_open(file))


def _open(file: Path) -> tuple[datetime, bytes]:
    with file.open("rb") as opened:
        return datetime.fromtimestamp(file.stat().st_mtime, UTC), opened.read(MAIL_BYTES)


def parse(name: str, at: datetime, content: bytes) -> Mail:
    message = BytesParser(EmailMessage, policy=email.policy.default).parsebytes(content)
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    parts = [part for part in message.walk() if not part.is_multipart() and part not in (text, html)]
    entry = next((part for part in parts if part.get_content_type() == "text/calendar"), None)
    return Mail(
        name,
        at,
        str(message.get("Subject", "")),
        str(message.get("To", "")),
        str(message.get("From", "")),
        _text(text),
        _text(html),
        [
            (part.get_filename() or part.get_content_type(), part.get_content_type(), len(_payload(part)))
            for part in parts
        ],
        _text(entry).replace("\r\n", "\n"),
        entry is not None and entry.get_param("method") == "REQUEST",
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


async def _mail(request: web.Request) -> tuple[str, datetime, bytes]:
    """The mail of that name. Only what the Maildir lists is opened, so a path leads nowhere else."""
    maildir, name = request.config_dict[PAGES].maildir, request.match_info["name"]

    def find() -> tuple[str, datetime, bytes]:
        for file in _files(maildir):
            if file.name == name:
                return name, *_open(file)
        raise NotFound

    return await asyncio.to_thread(find)


async def _preview(request: web.Request) -> Mail:
    shown, kind, language = request.config_dict[PAGES], request.match_info["kind"], request.match_info["language"]
    if kind not in shown.kinds or language not in LANGUAGES:
        raise NotFound
    return await asyncio.to_thread(_write, shown, kind, language, now(request))


def _write(shown: DemoPages, kind: str, language: str, at: datetime) -> Mail:
    if shown.preview is None:
        raise NotFound
    return parse(f"{kind}/{language}", at, shown.preview(kind, language))


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
    web.post("/demo/mailbox/{name}/{answer}", answer),
    web.get("/demo/mails", show_previews),
    web.get("/demo/mails/{kind}/{language}", show_preview),
    web.get("/demo/mails/{kind}/{language}/html", show_preview_html),
]
