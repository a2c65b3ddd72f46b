"""How a message looks: the same words plain and as HTML, whatever people wrote into it."""

import re
import uuid
from datetime import UTC, datetime
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.news import Message
from bot.notices import one_line, render, to_html
from bot.replies import Line, shorten
from supervision.models import Role
from supervision.people import Person

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ANA = Person(uuid.UUID(int=1), "Ana", "a@example.org", "@ana:example.org", "en", "UTC", frozenset({Role.SUPERVISOR}))


def said(*lines: Line, to: tuple[Person, ...] = ()) -> dict[str, object]:
    return render(Message(lines, to), ANA, NOW)


def reason(text: str) -> Line:
    return Line("news.reason", {"reason": text})


def test_a_list_is_one_and_a_sentence_is_none() -> None:
    """Whatever a sentence begins with: a name can look like an item."""
    found = said(
        Line("help.head"),
        Line("help.book"),
        Line("help.help"),
        Line("news.declined", {"supervisor": "1. Ana", "span": "x"}),
        Line("news.declined", {"supervisor": "- Ana", "span": "x"}),
        Line("slots.line", {"number": 3, "span": "# x"}),
    )
    html = str(found["formatted_body"])
    assert re.findall(r"</?[ou]l[^>]*>|</?li>", html) == [
        *("<ul>", "<li>", "</li>", "<li>", "</li>", "</ul>"),
        *('<ol start="3">', "<li>", "</li>", "</ol>"),
    ]
    assert html.startswith("<p>This is what I can do:</p><ul><li>!book 2: asks")
    assert "<p>1. Ana declined x." in html
    assert "<p>- Ana declined x." in html


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("![a](https://x.example/a.png)", "![a](https://x.example/a.png)"),
        ("[a](javascript:alert(1))", "[a](javascript:alert(1))"),
        ("**b** _i_ `c` ~~d~~ \\e", "**b** _i_ `c` ~~d~~ \\e"),
        ("&amp; &#60;b>", "&amp;amp; &amp;#60;b&gt;"),
        ("<https://x.example>", "&lt;https://x.example&gt;"),
        ("one\nConfirmed by Ana", "one Confirmed by Ana"),
        ("\u202egnp.exe\u2066", "gnp.exe"),
        ("<div>" * 500, "&lt;div&gt;" * 500),
    ],
)
def test_what_people_wrote_stays_text(written: str, shown: str) -> None:
    found = said(reason(written))
    assert found["formatted_body"] == f"<p>Reason: {shown}</p>"
    assert found["body"] == f"Reason: {unescape(shown)}"


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])))
def test_both_bodies_say_the_same(text: str) -> None:
    found = said(reason(text), Line("news.declined", {"supervisor": text, "span": text}))
    html = str(found["formatted_body"])
    assert re.sub("</?p>", "", html).count("<") == 0
    paragraphs = [unescape(one) for one in re.findall("<p>(.*?)</p>", html)]
    assert "\n".join(paragraphs) == found["body"]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1))
def test_a_sentence_of_any_text_is_one_paragraph(text: str) -> None:
    shown = one_line(text)
    if shown:
        assert unescape(to_html([shown], [False]).removeprefix("<p>").removesuffix("</p>")) == shown


def test_only_what_is_meant_for_somebody_rings() -> None:
    assert said(reason("x"))["msgtype"] == "m.notice"
    assert "m.mentions" not in said(reason("x"))
    rings = said(reason("x"), to=(ANA,))
    assert (rings["msgtype"], rings["m.mentions"]) == ("m.text", {"user_ids": [ANA.matrix_id]})


def test_a_thread_is_answered_in_it() -> None:
    message = Message((reason("x"),), thread_root="$root")
    assert render(message, ANA, NOW)["m.relates_to"] == {"rel_type": "m.thread", "event_id": "$root"}


def test_of_what_is_listed_at_length_the_rest_is_on_the_page() -> None:
    head, item, row, foot = Line("settings.foot"), Line("hours.none"), Line("slots.line"), Line("settings.foot")
    short = (head, *[item] * 18, foot)
    assert shorten(short, "https://x.example") == short
    more = Line("list.more_there", {"count": 6, "url": "https://x.example"})
    assert shorten((head, *[item] * 23, foot), "https://x.example") == (head, *[item] * 17, more, foot)
    numbered = (head, *[row] * 30)
    assert shorten(numbered, "https://x.example") == numbered
