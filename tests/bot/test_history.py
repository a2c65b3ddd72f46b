"""What is read of a room's past, put together as records and as a page. Events are made by hand; nothing is mocked."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bot.events import Doubt, Incoming, Origin, open_envelope, read_content, read_unreadable
from bot.history import Past, Removal, read_room
from bot.makings import safe_name
from bot.prints import Cover, page
from bot.records import Records
from supervision.texts import reader
from tests.support.homeserver import Pair, Seat

ANA, BRUNO, BOT = "@ana:example.org", "@bruno:example.org", "@visavis:example.org"
BEGINNING = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)
Json = dict[str, Any]


def past(
    sender: str,
    content: Json,
    *,
    event_type: str = "m.room.message",
    event_id: str = "$one",
    minutes: int = 0,
    state_key: str | None = None,
    doubt: Doubt | None = None,
    removal: Removal | None = None,
) -> Past:
    """An event as it would be read today."""
    raw: Json = {
        "event_id": event_id,
        "sender": sender,
        "type": event_type if state_key is not None or event_type == "m.reaction" else "m.room.encrypted",
        "origin_server_ts": int((BEGINNING + timedelta(minutes=minutes)).timestamp() * 1000),
        "content": content,
    }
    if state_key is not None:
        raw["state_key"] = state_key
    envelope = open_envelope("!room", raw)
    assert envelope is not None
    if doubt is Doubt.undecryptable:
        incoming: Incoming = read_unreadable(envelope, doubt, Origin(doubt))
    else:
        incoming = read_content(envelope, event_type, content, Origin(doubt))
    return Past(incoming, content.get("m.relates_to", {}), removal)


def text(sender: str, body: str, **values: Any) -> Past:
    return past(sender, {"msgtype": "m.text", "body": body}, **values)


def member(user: str, membership: str, minutes: int = 0) -> Past:
    return past(user, {"membership": membership}, event_type="m.room.member", state_key=user, minutes=minutes)


def edit(sender: str, body: str, of: str, minutes: int, doubt: Doubt | None = None) -> Past:
    new = {"msgtype": "m.text", "body": body}
    relation = {"rel_type": "m.replace", "event_id": of}
    content = {"msgtype": "m.text", "body": f"* {body}", "m.new_content": new, "m.relates_to": relation}
    return past(sender, content, event_id=f"$edit-{minutes}", minutes=minutes, doubt=doubt)


def taken(events: Iterable[Past], asker: str = ANA) -> Records:
    records = Records(asker)
    for one in events:
        records.take(one)
    return records


def test_what_was_written_while_the_asker_was_away_is_left_out() -> None:
    records = taken(
        [
            member(BRUNO, "join"),
            text(BRUNO, "before", event_id="$1"),
            member(ANA, "join"),
            text(BRUNO, "with her", event_id="$2"),
            edit(BRUNO, "before, changed", "$1", 1),
            member(ANA, "leave"),
            text(BRUNO, "after", event_id="$3"),
            edit(BRUNO, "with her, changed when she was gone", "$2", 2),
        ]
    )
    assert [one["text"] for one in records if one["state"] is None] == ["with her"]
    assert records.left_out == 3


def test_an_edit_counts_only_as_its_author_s_own_and_unforged() -> None:
    forged = [Doubt.wrong_sender, Doubt.not_encrypted, Doubt.forwarded_session]
    records = taken(
        [
            member(ANA, "join"),
            text(BRUNO, "first", event_id="$1"),
            edit(ANA, "hers", "$1", 1),
            *(edit(BRUNO, f"forged {doubt}", "$1", 2 + number, doubt) for number, doubt in enumerate(forged)),
            edit(BRUNO, "second", "$1", 9),
            edit(BRUNO, "third", "$1", 10, Doubt.unknown_device),
        ]
    )
    [record] = [one for one in records if one["id"] == "$1"]
    assert record["text"] == "third"
    assert [(one["text"], one.get("doubt")) for one in record["edits"]] == [
        ("first", None),
        ("second", None),
        ("third", "unknown_device"),
    ]


def test_more_records_than_a_page_stay_in_order_each_with_what_came_late() -> None:
    events = [member(ANA, "join"), *(text(BRUNO, f"{n}", event_id=f"${n}") for n in range(450))]
    relation = {"rel_type": "m.annotation", "event_id": "$7", "key": "👍"}
    events.append(past(ANA, {"m.relates_to": relation}, event_type="m.reaction", event_id="$r"))
    records = taken(events)
    for _ in range(2):
        found = list(records)
        assert [one["text"] for one in found[1:]] == [f"{n}" for n in range(450)]
        assert [one["id"] for one in found if one["reactions"]] == ["$7"]


HOSTILE = {
    "<script>alert(1)</script>": "",
    '<img src=x onerror="alert(1)">': "",
    '<a href="javascript:alert(1)">x</a>': "<a>x</a>",
    '<a href="jAvAsCrIpT&#58;alert(1)">x</a>': "<a>x</a>",
    '<a href="https://example.org/?a=1&amp;b" onclick="x()">x</a>': '<a href="https://example.org/?a=1&amp;b">x</a>',
    '<b style="background:url(https://t.example/)">x</b>': "<b>x</b>",
    '<svg><script href="https://t.example/"/></svg>y': "y",
    "<style>@import 'https://t.example/';</style>z": "z",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>": "",
    '<form action="https://t.example/"><button>go</button></form>': "go",
    '<meta http-equiv="refresh" content="0;url=https://t.example/">m': "m",
    '<base href="https://t.example/">b': "b",
    "</article></main></body><h1>out</h1>": "<h1>out</h1>",
}


@pytest.mark.parametrize(("html", "shown"), HOSTILE.items())
def test_html_is_cut_down_to_what_is_harmless(html: str, shown: str) -> None:
    content = {"msgtype": "m.text", "body": "plain", "format": "org.matrix.custom.html", "formatted_body": html}
    printed = printed_page([member(ANA, "join"), past(BRUNO, content)])
    body = printed.split("<main>")[1]
    rich = f'<div class="rich">{shown}</div>'
    assert (rich in body) if shown else ('<p class="text">plain</p>' in body and 'class="rich"' not in body)


def test_html_that_is_nested_without_end_is_shown_as_its_text() -> None:
    deep = "<div>" * 3_000 + "x"
    content = {"msgtype": "m.text", "body": "plain", "format": "org.matrix.custom.html", "formatted_body": deep}
    assert '<p class="text">plain</p>' in printed_page([member(ANA, "join"), past(BRUNO, content)])
    content["formatted_body"] = "<div>" * 1_500 + "x"
    assert "x" in printed_page([member(ANA, "join"), past(BRUNO, content)])


def test_a_page_escapes_names_bodies_and_types() -> None:
    evil = '"><script>x()</script>'
    events = [
        member(ANA, "join"),
        text(BRUNO, evil, event_id=f"$1{evil}"),
        past(BRUNO, {"odd": 1}, event_type=f"m.{evil}", event_id="$2"),
        past(
            ANA,
            {"m.relates_to": {"rel_type": "m.annotation", "event_id": f"$1{evil}", "key": evil}},
            event_type="m.reaction",
            event_id="$3",
        ),
    ]
    names = {ANA: f"Ana{evil}", BRUNO: f"Bruno{evil}", BOT: "Visavis"}
    assert "<script" not in printed_page(events, names=names)


def test_days_are_the_asker_s_and_each_is_headed_once() -> None:
    events = [member(ANA, "join"), text(BRUNO, "a", event_id="$1"), text(BRUNO, "b", event_id="$2", minutes=60)]
    assert printed_page(events).count("<h2>") == 1  # half past eight and half past nine in São Paulo
    assert printed_page(events, zone="Europe/Lisbon").count("<h2>") == 2  # midnight lies between them


def test_surrogates_alone_do_not_stop_it() -> None:
    records = taken([member(ANA, "join"), text(BRUNO, "broken \ud800 half", event_id="$1")])
    assert next(one["text"] for one in records if one["id"] == "$1") == "broken \ud800 half"
    json.dumps(list(records), ensure_ascii=False).encode("utf-8", "replace")


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("relatório.pdf", "relatório.pdf"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("a\\b:c*d?.txt", "a_b_c_d_.txt"),
        ("con.txt", "_con.txt"),
        ("\u202egpj.exe", "_gpj.exe"),
        ("", "file"),
        ("...", "file"),
        ("x" * 300 + ".pdf", "x" * 96 + ".pdf"),
        ("name\ud800.txt", "name_.txt"),
    ],
)
def test_names_are_safe_everywhere(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def printed_page(
    events: Iterable[Past], *, zone: str = "America/Sao_Paulo", names: dict[str, str] | None = None
) -> str:
    records = taken(events)
    names = names or {ANA: "Ana", BRUNO: "Bruno", BOT: "Visavis"}
    cover = Cover(ANA, BOT, names, reader("pt-BR", zone), BEGINNING)
    return "".join(page(cover, records, records.quoted))


async def test_a_room_is_read_from_its_first_event_to_its_last(seat: Seat, pair: Pair) -> None:
    """Also the bot's own messages, over more pages than one, each once and in order."""
    sent = []
    for number in range(3):
        sent.append(await pair.bruno.send_text(pair.room_id, f"his {number}"))
        sent.append(await seat.say(pair, f"ours {number}", transaction_id=f"t{number}"))
    last = await pair.ana.send_text(pair.room_id, "hers")
    await seat.next_heard(last)
    pages = [events async for events in read_room(seat.client, pair.room_id, page=4)]
    found = [one.event for events in pages for one in events]
    assert [len(events) for events in pages[:-1]] == [4] * (len(pages) - 1)
    assert found[0].event_type == "m.room.create"
    assert [one.event_id for one in found if one.event_type == "m.room.message"] == [*sent, last]
    ours = [one for one in found if one.sender == seat.client.user_id and one.event_type == "m.room.message"]
    assert [(one.body, one.doubt, one.device_id) for one in ours] == [
        (f"ours {number}", None, seat.client.device_id) for number in range(3)
    ]
    assert len({one.event_id for one in found}) == len(found)


async def test_messages_that_the_homeserver_shows_no_more_do_not_end_the_room(seat: Seat, pair: Pair) -> None:
    """Synapse hides what is older than a room's days until it purges it: a page of such messages is empty."""
    homeserver = seat.client.homeserver
    old = str(int((datetime.now(UTC) - timedelta(days=40)).timestamp() * 1000))
    for number in range(12):
        place = f"/rooms/{pair.room_id}/send/m.room.message/old-{number}"
        await homeserver.ask("PUT", place, {"msgtype": "m.text", "body": "old"}, params={"ts": old})
    days = {"max_lifetime": int(timedelta(days=30).total_seconds() * 1000)}
    await homeserver.ask("PUT", f"/rooms/{pair.room_id}/state/m.room.retention/", days)
    young = await seat.say(pair, "young")
    pages = [events async for events in read_room(seat.client, pair.room_id, page=4)]
    found = [one.event for events in pages for one in events]
    assert [one.event_id for one in found if one.event_type == "m.room.message"] == [young]
