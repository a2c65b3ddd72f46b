"""The demo's pages about mails: every mail there can be, and the buttons of an invitation."""

import itertools
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridge import entries, mail, samples
from bridge.mail import KINDS
from supervision.config import Config
from supervision.people import LANGUAGES
from tests.web.conftest import Open
from web.demo import DemoPages

WRITTEN_AT = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def taken() -> list[tuple[bytes, str]]:
    """What was answered; the bridge takes no word but these."""
    return []


@pytest.fixture
def demo(tmp_path: Path, config: Config, taken: list[tuple[bytes, str]]) -> DemoPages:
    def preview(kind: str, language: str) -> bytes:
        return mail.write(samples.letter(kind, language, now=WRITTEN_AT), config, now=WRITTEN_AT).content

    async def answer(invitation: bytes, word: str) -> bool:
        taken.append((invitation, word))
        return word != "tentative"

    (tmp_path / "mail" / "new").mkdir(parents=True)
    for kind in ("appointment.booked", "appointment.cancelled"):
        (tmp_path / "mail" / "new" / kind).write_bytes(preview(kind, "en"))
    return DemoPages(tmp_path / "mail", (), KINDS, preview, answer)


async def test_every_mail_is_listed_in_every_language(open_browser: Open) -> None:
    browser = await open_browser()
    await browser.get("/demo")
    assert 'href="/demo/mails"' in browser.page
    await browser.get("/demo/mails")
    assert re.findall(r'href="/demo/mails/([^"]+)"', browser.page) == [
        f"{kind}/{language}" for kind in KINDS for language in LANGUAGES
    ]
    assert ">Supervisão confirmada: ter., 24/11, 10:00</a>" in browser.page


async def test_each_mail_opens_as_page_text_and_entry(open_browser: Open) -> None:
    browser = await open_browser()
    for kind, language in itertools.product(KINDS, LANGUAGES):
        assert (await browser.get(f"/demo/mails/{kind}/{language}")).status == 200
        assert f'<iframe src="/demo/mails/{kind}/{language}/html"' in browser.page
        entry = entries.changes_calendar(kind) and kind.startswith(("appointment.", "series."))
        assert ("BEGIN:VCALENDAR" in browser.page) is entry
        assert "<form" not in browser.page
        answer = await browser.get(f"/demo/mails/{kind}/{language}/html")
        assert answer.headers["Content-Security-Policy"].endswith("sandbox allow-top-navigation-by-user-activation")
        assert f'<html lang="{language}" dir="ltr"><head><base target="_top">' in browser.page


@pytest.mark.parametrize("path", ["x/en", "sign_in/de", "..%2F/en", "sign_in/en/x"])
async def test_there_are_no_other_mails(open_browser: Open, path: str) -> None:
    browser = await open_browser()
    assert (await browser.get(f"/demo/mails/{path}")).status in (303, 404)


async def test_an_invitation_is_answered_as_in_a_calendar(
    open_browser: Open, demo: DemoPages, taken: list[tuple[bytes, str]]
) -> None:
    browser = await open_browser()
    kept = (demo.maildir / "new" / "appointment.booked").read_bytes()
    path = "/demo/mailbox/appointment.booked"
    await browser.get(path)
    assert re.findall(r'action="([^"]+)"', browser.page) == [
        f"{path}/{word}" for word in ("accept", "tentative", "decline")
    ]
    for word, done in (("accept", "answer_accept"), ("decline", "answer_decline"), ("tentative", "answer_refused")):
        answer = await browser.client.post(f"{path}/{word}", allow_redirects=False)
        assert (answer.status, answer.headers["Location"]) == (303, f"{path}?done={done}")
    assert taken == [(kept, "accept"), (kept, "decline"), (kept, "tentative")]
    await browser.get(f"{path}?done=answer_decline")
    assert "Answer sent: declined." in browser.page


async def test_only_an_invitation_can_be_answered(open_browser: Open, taken: list[tuple[bytes, str]]) -> None:
    browser = await open_browser()
    await browser.get("/demo/mailbox/appointment.cancelled")
    assert "<form" not in browser.page
    for path in ("appointment.booked/other", "none/accept"):
        assert (await browser.client.post(f"/demo/mailbox/{path}", allow_redirects=False)).status == 404
    foreign = await browser.post("/demo/mailbox/appointment.booked/accept", headers={"Origin": "https://evil.example"})
    assert foreign.status == 403
    assert taken == []
