"""What a mail says to one person, how it is built, and what cannot be smuggled into it."""

import re
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import SMTP
from html import unescape

import pytest
from _pytest.mark import ParameterSet
from icalendar import Alarm, Calendar
from markupsafe import escape
from sqlalchemy import select

from bridge import contents, letters, mail, samples
from bridge.letters import Booking, Group, Letter, Offering, Outdated
from bridge.mail import KINDS
from bridge.templates import MAILS
from supervision import appointments, groups, moves, seals, series, shifts, sign_ins, waits
from supervision.appointments import Appointment, Proposal
from supervision.config import InboundConfig
from supervision.db import Database
from supervision.errors import Permanent
from supervision.groups import Scope
from supervision.models import Channel, Mode, Role, Status, Topic
from supervision.models import notifications as outbox
from supervision.notifications import Notification
from supervision.people import Person
from supervision.preferences import Preferences
from supervision.series import Series
from supervision.texts import Reader
from supervision.waits import Offer
from tests.bridge.conftest import BASE_URL, SECRET, make_config
from tests.support.sample import acts, add_pair

CONFIG = make_config(25)
NOW = datetime(2026, 11, 23, 12, 0, 5, tzinfo=UTC)
STARTS_AT = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)
WAS = {"was": "2026-11-25T13:00:00+00:00"}
SIGN_IN_ID = uuid.UUID("0f8fad5b-d9cb-469f-a165-70867728950e")
ANA = Person(uuid.UUID(int=1), "Ana", "ana@example.org", None, "pt-BR", "America/Sao_Paulo", frozenset(Role))
BRUNO = Person(uuid.UUID(int=2), "Bruno", "bruno@example.org", None, "pt-BR", "Europe/Lisbon", frozenset(Role))


@dataclass(frozen=True)
class Case:
    """One mail: its kind, who reads it, in which state the appointment is, who did it, and what it should say."""

    kind: str
    to: str
    status: Status
    by: str | None
    says: dict[str, tuple[str, str, str]]
    details: tuple[tuple[str, object], ...] = ()


def says(pt: tuple[str, str, str], en: tuple[str, str, str]) -> dict[str, tuple[str, str, str]]:
    """Title, first line, second line in each language."""
    return {"pt-BR": pt, "en": en}


HELD_PT = "Confirme ou recuse; até lá, o horário fica reservado."
HELD_EN = "Confirm or decline it; the time is held until then."
NO_LONGER_PT, NO_LONGER_EN = "O horário anterior não vale mais.", "The earlier time no longer holds."
CHANGE_PT, CHANGE_EN = (
    "Se algo mudar, remarque ou cancele antes do início.",
    "If something changes, move or cancel it before it begins.",
)
CASES = [
    Case(
        "appointment.requested", "ana", Status.REQUESTED, "bruno",
        says(("Pedido de supervisão", "Bruno pede uma supervisão.", HELD_PT),
             ("Supervision requested", "Bruno asks for an appointment.", HELD_EN)),
    ),
    Case(
        "appointment.confirmed", "ana", Status.CONFIRMED, "ana",
        says(("Supervisão confirmada", "Você confirmou a supervisão com Bruno.", CHANGE_PT),
             ("Supervision confirmed", "You confirmed the appointment with Bruno.", CHANGE_EN)),
    ),
    Case(
        "appointment.confirmed", "bruno", Status.CONFIRMED, "ana",
        says(("Supervisão confirmada", "Ana confirmou a sua supervisão.", CHANGE_PT),
             ("Supervision confirmed", "Ana confirmed your appointment.", CHANGE_EN)),
    ),
    Case(
        "appointment.declined", "ana", Status.DECLINED, "ana",
        says(("Pedido de supervisão recusado", "Você recusou o pedido de Bruno.", "O horário voltou a ficar livre."),
             ("Supervision request declined", "You declined the request from Bruno.", "The time is free again.")),
    ),
    Case(
        "appointment.declined", "bruno", Status.DECLINED, "ana",
        says(("Pedido de supervisão recusado", "Ana recusou o seu pedido.", "Você pode pedir outro horário."),
             ("Supervision request declined", "Ana declined your request.", "You can ask for another time.")),
    ),
    Case(
        "appointment.declined", "ana", Status.DECLINED, None,
        says(("Pedido de supervisão sem resposta", "O pedido de Bruno ficou sem resposta.",
              "Ele não vale mais. Bruno pode pedir outro horário."),
             ("Supervision request unanswered", "The request from Bruno went unanswered.",
              "It is no longer valid. Bruno can ask for another time.")),
        (("lapsed", True),),
    ),
    Case(
        "appointment.declined", "bruno", Status.DECLINED, None,
        says(("Pedido de supervisão sem resposta", "Seu pedido a Ana ficou sem resposta.",
              "Ele não vale mais. Você pode pedir outro horário."),
             ("Supervision request unanswered", "Your request to Ana went unanswered.",
              "It is no longer valid. You can ask for another time.")),
        (("lapsed", True),),
    ),
    Case(
        "appointment.cancelled", "ana", Status.CANCELLED, "bruno",
        says(("Supervisão cancelada", "Bruno cancelou a sua supervisão.", "O horário voltou a ficar livre."),
             ("Supervision cancelled", "Bruno cancelled your appointment.", "The time is free again.")),
    ),
    Case(
        "appointment.cancelled", "bruno", Status.CANCELLED, "bruno",
        says(("Supervisão cancelada", "Você cancelou a supervisão com Ana.", "Você pode pedir outro horário."),
             ("Supervision cancelled", "You cancelled the appointment with Ana.", "You can ask for another time.")),
    ),
    Case(
        "appointment.cancelled", "bruno", Status.CANCELLED, None,
        says(("Supervisão cancelada", "A supervisão com Ana foi cancelada.", "Você pode pedir outro horário."),
             ("Supervision cancelled", "Your appointment with Ana was cancelled.", "You can ask for another time.")),
    ),
    Case(
        "appointment.cancelled", "ana", Status.CANCELLED, "bruno",
        says(("Supervisão cancelada", "Bruno cancelou a sua supervisão.",
              "O prazo de cancelamento já tinha passado, e isso fica anotado. O horário voltou a ficar livre."),
             ("Supervision cancelled", "Bruno cancelled your appointment.",
              "The cancellation deadline had already passed, and that is noted. The time is free again.")),
        (("late", True),),
    ),
    Case(
        "appointment.cancelled", "bruno", Status.CANCELLED, "bruno",
        says(("Supervisão cancelada", "Você cancelou a supervisão com Ana.",
              "O prazo de cancelamento já tinha passado, e isso fica anotado. Você pode pedir outro horário."),
             ("Supervision cancelled", "You cancelled the appointment with Ana.",
              "The cancellation deadline had already passed, and that is noted. You can ask for another time.")),
        (("late", True),),
    ),
    Case(
        "appointment.booked", "ana", Status.CONFIRMED, "ana",
        says(("Supervisão marcada", "Você marcou uma supervisão com Bruno.",
              "Bruno já sabe e pode recusar até o início."),
             ("Supervision booked", "You booked an appointment with Bruno.",
              "Bruno has been told and can decline it until it begins.")),
    ),
    Case(
        "appointment.booked", "bruno", Status.CONFIRMED, "ana",
        says(("Supervisão marcada", "Ana marcou uma supervisão com você.", "Se não puder, recuse antes do início."),
             ("Supervision booked", "Ana booked an appointment with you.",
              "If you cannot come, decline it before it begins.")),
    ),
    Case(
        "appointment.declined", "ana", Status.DECLINED, "bruno",
        says(("Supervisão recusada", "Bruno recusou a supervisão que você marcou.", "O horário voltou a ficar livre."),
             ("Supervision declined", "Bruno declined the appointment that you booked.", "The time is free again.")),
    ),
    Case(
        "appointment.declined", "bruno", Status.DECLINED, "bruno",
        says(("Supervisão recusada", "Você recusou a supervisão que Ana marcou.", "Você pode pedir outro horário."),
             ("Supervision declined", "You declined the appointment that Ana booked.",
              "You can ask for another time.")),
    ),
    Case(
        "appointment.confirmed", "ana", Status.CONFIRMED, "bruno",
        says(("Supervisão confirmada", "Bruno marcou uma supervisão com você, e ela já está confirmada.", CHANGE_PT),
             ("Supervision confirmed", "Bruno booked an appointment with you, and it is confirmed.", CHANGE_EN)),
        (("automatic", True),),
    ),
    Case(
        "appointment.confirmed", "bruno", Status.CONFIRMED, "bruno",
        says(("Supervisão confirmada", "Sua supervisão com Ana está confirmada.", CHANGE_PT),
             ("Supervision confirmed", "Your appointment with Ana is confirmed.", CHANGE_EN)),
        (("automatic", True),),
    ),
    Case(
        "appointment.rescheduled", "ana", Status.CONFIRMED, "ana",
        says(("Supervisão remarcada", "Você aceitou um novo horário para a supervisão com Bruno.", NO_LONGER_PT),
             ("Supervision moved", "You accepted a new time for the appointment with Bruno.", NO_LONGER_EN)),
    ),
    Case(
        "appointment.rescheduled", "bruno", Status.CONFIRMED, "ana",
        says(("Supervisão remarcada", "Ana aceitou um novo horário para a sua supervisão.", NO_LONGER_PT),
             ("Supervision moved", "Ana accepted a new time for your appointment.", NO_LONGER_EN)),
    ),
    Case(
        "appointment.rescheduled", "ana", Status.CONFIRMED, "bruno",
        says(("Supervisão remarcada", "A supervisão com Bruno tem um novo horário.", NO_LONGER_PT),
             ("Supervision moved", "Your appointment with Bruno has a new time.", NO_LONGER_EN)),
    ),
    Case(
        "appointment.rescheduled", "bruno", Status.CONFIRMED, "bruno",
        says(("Supervisão remarcada", "A supervisão com Ana tem um novo horário.", NO_LONGER_PT),
             ("Supervision moved", "Your appointment with Ana has a new time.", NO_LONGER_EN)),
    ),
    Case(
        "appointment.rescheduled", "ana", Status.REQUESTED, "bruno",
        says(("Novo horário a confirmar", "Bruno pede um novo horário.", HELD_PT),
             ("New time to be confirmed", "Bruno asks for a new time.", HELD_EN)),
    ),
    Case(
        "appointment.rescheduled", "bruno", Status.REQUESTED, "bruno",
        says(("Novo horário a confirmar", "Você pediu a Ana um novo horário.", "Falta Ana confirmar."),
             ("New time to be confirmed", "You asked Ana for a new time.", "Ana has yet to confirm.")),
    ),
    Case(
        "appointment.reminder", "bruno", Status.CONFIRMED, None,
        says(("Supervisão amanhã", "Sua supervisão com Ana é amanhã, às 13:00.",
              "Se não puder comparecer, remarque ou cancele antes."),
             ("Supervision tomorrow", "Your appointment with Ana is tomorrow, at 13:00.",
              "If you cannot come, move or cancel it before then.")),
    ),
]  # fmt: skip


def named(cases: list[Case]) -> list[ParameterSet]:
    return [
        pytest.param(case, id="-".join([case.kind, case.to, case.status, f"by-{case.by}", *dict(case.details)]))
        for case in cases
    ]


NAMED = named(CASES)
WITH_ENTRY = named([case for case in CASES if case.kind != "appointment.reminder"])


FOOT_PT = [
    "Você recebe este aviso porque faz supervisão pelo Visavis em visavis.example.org."
    " Ninguém lê respostas a esta mensagem.",
    "",
    "Escolher quais avisos receber:",
    f"{BASE_URL}/preferences",
]
FOOT_EN = [
    "You get this notice because you have supervision through Visavis at visavis.example.org."
    " Nobody reads replies to this message.",
    "",
    "Choose which notices you get:",
    f"{BASE_URL}/preferences",
]


def letter(case: Case, language: str = "pt-BR", *, place: str = "") -> Letter:
    people = {"ana": replace(ANA, language=language), "bruno": replace(BRUNO, language=language)}
    recipient, other = people[case.to], people["bruno" if case.to == "ana" else "ana"]
    appointment = Appointment(
        uuid.UUID(int=7), uuid.UUID(int=8), ANA.id, BRUNO.id, STARTS_AT, STARTS_AT + timedelta(minutes=50),
        case.status, 2, Mode.ONLINE, place,
    )  # fmt: skip
    details = {"by": case.by and str(people[case.by].id), **dict(case.details)}
    if case.kind == "appointment.rescheduled":
        details |= WAS
    return Letter(notification(case.kind, recipient, details, appointment), recipient, Booking(appointment, other))


def notification(kind: str, person: Person, details: dict[str, object], about: Appointment | None) -> Notification:
    return Notification(
        uuid.UUID(int=9), person.id,
        about.pair_id if about else None, about.id if about else None, about.revision if about else None,
        Channel.MAIL, kind, details, 2, NOW - timedelta(seconds=5), 1, None,
    )  # fmt: skip


def sign_in(person: Person) -> Letter:
    return Letter(notification("sign_in", person, {"sign_in_id": str(SIGN_IN_ID)}, None), person)


def read(letter: Letter) -> EmailMessage:
    """The mail as its receiver reads it."""
    message = message_from_bytes(mail.write(letter, CONFIG, now=NOW).content, policy=SMTP)
    assert isinstance(message, EmailMessage)
    return message


def part(message: EmailMessage, content_type: str) -> str:
    (found,) = (part for part in message.walk() if part.get_content_type() == content_type)
    content = found.get_content()
    return content if isinstance(content, str) else content.decode()


def text(message: EmailMessage) -> list[str]:
    return part(message, "text/plain").splitlines()


def shown(html: str) -> list[str]:
    """What a person reads in HTML, element by element."""
    body = re.sub(r"<head>.*</head>", "", html, flags=re.S)
    return [line for line in (line.strip() for line in re.sub(r"<[^>]+>", "\n", body).split("\n")) if line]


@pytest.mark.parametrize("language", ["pt-BR", "en"])
@pytest.mark.parametrize("case", NAMED)
def test_a_mail_says_what_happened_and_what_one_can_do(case: Case, language: str) -> None:
    message = read(letter(case, language))
    title, lead, then = case.says[language]
    day = "ter., 24/11" if language == "pt-BR" else "Tue 24 Nov"
    assert message["Subject"] == f"{title}: {day}, {'10:00' if case.to == 'ana' else '13:00'}"
    assert text(message)[:2] == [lead, then]
    assert shown(part(message, "text/html"))[:3] == ["Visavis", lead, then]


@pytest.mark.parametrize("case", WITH_ENTRY)
def test_its_calendar_entry_says_the_same(case: Case) -> None:
    message = read(letter(case))
    gone = case.status in (Status.DECLINED, Status.CANCELLED)
    invitation = part(message, "text/calendar")
    assert invitation.replace("\r\n", "\n") == part(message, "application/ics").replace("\r\n", "\n")
    (entry,) = Calendar.from_ical(invitation).events
    assert (entry.start, entry.end) == (STARTS_AT, STARTS_AT + timedelta(minutes=50))
    assert [str(entry[name]) for name in ("UID", "STATUS", "ATTENDEE", "ORGANIZER")] == [
        f"{uuid.UUID(int=7)}@clinic.example.org",
        "CANCELLED" if gone else "TENTATIVE" if case.status is Status.REQUESTED else "CONFIRMED",
        f"mailto:{case.to}@example.org",
        "mailto:visavis@clinic.example.org",
    ]
    assert (entry["SEQUENCE"], entry.DTSTAMP) == (2, NOW - timedelta(seconds=5))


@pytest.mark.parametrize(
    ("kind", "to", "status", "by", "answer"),
    [
        ("appointment.requested", "ana", Status.REQUESTED, "bruno", "NEEDS-ACTION"),
        ("appointment.confirmed", "bruno", Status.CONFIRMED, "ana", "ACCEPTED"),
        ("appointment.rescheduled", "ana", Status.CONFIRMED, "ana", "ACCEPTED"),
        ("appointment.rescheduled", "bruno", Status.CONFIRMED, "ana", "ACCEPTED"),
        ("appointment.booked", "ana", Status.CONFIRMED, "ana", "ACCEPTED"),
        ("appointment.booked", "bruno", Status.CONFIRMED, "ana", "NEEDS-ACTION"),
        ("appointment.rescheduled", "bruno", Status.REQUESTED, "bruno", "ACCEPTED"),
    ],
)
def test_who_asked_or_agreed_has_accepted(kind: str, to: str, status: Status, by: str | None, answer: str) -> None:
    (entry,) = Calendar.from_ical(part(read(letter(Case(kind, to, status, by, {}))), "text/calendar")).events
    assert entry["ATTENDEE"].params["PARTSTAT"] == answer


@pytest.mark.parametrize("case", WITH_ENTRY)
def test_its_parts_and_headers(case: Case) -> None:
    message = read(letter(case))
    method = "CANCEL" if case.status in (Status.DECLINED, Status.CANCELLED) else "REQUEST"
    assert [part["Content-Type"].split(";")[0] for part in message.walk()] == [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "text/html",
        "text/calendar",
        "application/ics",
    ]
    parts = list(message.walk())
    assert dict(parts[4]["Content-Type"].params) == {"charset": "utf-8", "method": method}
    assert f"METHOD:{method}\r\n" in part(message, "text/calendar").replace("\r\n", "\n").replace("\n", "\r\n")
    assert parts[5]["Content-Disposition"] == 'attachment; filename="visavis.ics"'
    named = "Ana <ana@example.org>" if case.to == "ana" else "Bruno <bruno@example.org>"
    assert {name: str(value) for name, value in message.items() if name not in ("Subject", "Content-Type")} == {
        "From": "Visavis <visavis@clinic.example.org>",
        "To": named,
        "Date": "Mon, 23 Nov 2026 12:00:05 +0000",
        "Message-ID": f"<{uuid.UUID(int=9)}@clinic.example.org>",
        "Auto-Submitted": "auto-generated",
        "MIME-Version": "1.0",
    }


def test_the_whole_text_of_a_confirmation() -> None:
    case = next(case for case in CASES if (case.kind, case.to) == ("appointment.confirmed", "bruno"))
    written = [
        re.sub(r"\?.*", "?…", line) for line in text(read(letter(case, "en", place="https://meet.example.org/a")))
    ]
    assert written == [
        "Ana confirmed your appointment.",
        "If something changes, move or cancel it before it begins.",
        "",
        "Date: Tuesday, 24 November",
        "Time: 13:00–13:50 (Lisbon; 10:00–10:50 in Sao Paulo)",
        "With: Ana",
        "Where: https://meet.example.org/a",
        "",
        "See the appointment:",
        f"https://visavis.example.org/appointments/{uuid.UUID(int=7)}",
        "",
        "Add to a calendar:",
        "Google: https://calendar.google.com/calendar/render?…",
        "Outlook.com: https://outlook.live.com/calendar/0/deeplink/compose?…",
        "Office 365: https://outlook.office.com/calendar/deeplink/compose?…",
        "Yahoo: https://calendar.yahoo.com/?…",
        "The attached file serves every other calendar.",
        "",
        "-- ",
        *FOOT_EN,
    ]


def test_the_whole_page_of_a_move() -> None:
    case = Case("appointment.rescheduled", "ana", Status.REQUESTED, "bruno", {})
    html = part(read(letter(case, place="Rua A, 5")), "text/html")
    assert shown(html) == [
        "Visavis",
        "Bruno pede um novo horário.",
        HELD_PT,
        "Data",
        "terça-feira, 24 de novembro",
        "Horário",
        "10:00–10:50 (São Paulo)",
        "13:00–13:50 em Lisboa",
        "Antes",
        "qua., 25/11, 10:00 (São Paulo)",
        "Com",
        "Bruno",
        "Onde",
        "Rua A, 5",
        "Responder ao pedido",
        FOOT_PT[0],
        "Escolher quais avisos receber",
    ]
    assert re.findall(r'href="([^"]*)"', html) == [
        f"{BASE_URL}/appointments/{uuid.UUID(int=7)}",
        f"{BASE_URL}/preferences",
    ]


@pytest.mark.parametrize("kind", ["identity.changed", "identity.confirmed"])
@pytest.mark.parametrize("language", ["pt-BR", "en"])
def test_a_new_identity_is_told_with_the_way_to_the_dashboard(language: str, kind: str) -> None:
    person = replace(ANA, language=language)
    message = read(Letter(notification(kind, person, {}, None), person))
    reader = Reader(language, person.time_zone)
    assert message["Subject"] == reader.say(f"mail.{kind}.subject")
    told = reader.say(f"mail.{kind}.what")
    assert told in part(message, "text/plain")
    assert part(message, "text/html").count(f'href="{BASE_URL}"') == 1


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("pt-BR", [
            "Aqui está o seu acesso ao Visavis.", "", "Entrar:", "LINK", "",
            "Lendo em outro aparelho? Digite este código na página que pediu o acesso:", "CODE", "",
            "Link e código valem uma única vez, por dez minutos, e só no navegador que os pediu.", "", "-- ",
            "Alguém pediu acesso com este endereço em visavis.example.org.",
            "Não foi você? Ignore esta mensagem: sem ela ninguém entra.",
        ]),
        ("en", [
            "Here is your sign-in to Visavis.", "", "Sign in:", "LINK", "",
            "Reading on another device? Type this code into the page that asked for it:", "CODE", "",
            "Link and code work once, for ten minutes, and only in the browser that asked for them.", "", "-- ",
            "Somebody asked to sign in with this address at visavis.example.org.",
            "Was it not you? Ignore this message: without it nobody gets in.",
        ]),
    ],
)  # fmt: skip
def test_a_sign_in_has_a_link_and_a_code(language: str, expected: list[str]) -> None:
    link = f"{BASE_URL}/sign-in/{sign_ins.link_token(SECRET, SIGN_IN_ID)}"
    code = sign_ins.code(SECRET, SIGN_IN_ID)
    message = read(sign_in(replace(ANA, language=language)))
    assert text(message) == [{"LINK": link, "CODE": f"{code[:4]} {code[4:]}"}.get(line, line) for line in expected]
    assert message["Subject"] == ("Seu acesso ao Visavis" if language == "pt-BR" else "Your sign-in to Visavis")
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/alternative",
        "text/plain",
        "text/html",
    ]
    html = part(message, "text/html")
    assert re.findall(r'href="([^"]*)"', html) == [link]
    assert f"{code[:4]} {code[4:]}" in shown(html)


@pytest.mark.parametrize("language", ["pt-BR", "en"])
@pytest.mark.parametrize("case", NAMED)
def test_a_page_needs_nothing_from_elsewhere(case: Case, language: str) -> None:
    html = part(read(letter(case, language)), "text/html")
    assert html.startswith(f'<!DOCTYPE html><html lang="{language}" dir="ltr">')
    assert re.findall(r"<(?:img|script|link|iframe|object|form)\b|@import|url\(|\{[{%]", html) == []
    assert set(re.findall(r'class="([a-z]+)"(?![^>]*style=)', html)) == set()


@pytest.mark.parametrize("zone", ["America/Sao_Paulo", "America/Bahia", "America/Argentina/Buenos_Aires"])
def test_the_other_s_time_is_left_out_where_the_clocks_agree(zone: str) -> None:
    written = letter(CASES[1])
    assert isinstance(written.subject, Booking)
    same = replace(written, subject=replace(written.subject, other=replace(BRUNO, time_zone=zone)))
    assert text(read(same))[4] == "Horário: 10:00–10:50 (São Paulo)"


def test_the_other_s_day_is_told_where_it_differs() -> None:
    written = letter(CASES[1])
    assert isinstance(written.subject, Booking)
    far = replace(written, subject=replace(written.subject, other=replace(BRUNO, time_zone="Pacific/Auckland")))
    assert text(read(far))[4] == "Horário: 10:00–10:50 (São Paulo; qua., 25/11, 02:00–02:50 em Auckland)"


@pytest.mark.parametrize("case", NAMED)
def test_a_place_is_told_only_of_what_takes_place(case: Case) -> None:
    gone = case.status in (Status.DECLINED, Status.CANCELLED)
    lines = text(read(letter(case, place="https://meet.example.org/a")))
    assert [line for line in lines if line.startswith("Onde")] == ([] if gone else ["Onde: https://meet.example.org/a"])


@pytest.mark.parametrize(
    "poison",
    ["\n", "\r\nBcc: eve@example.org", "=?UTF-8?Q?=0A?=", "á =?UTF-8?Q?=0ABcc:_eve=40example.org?=", "\x00", "\x7f",
     "\u2028", "\x85", "=?utf-8?b?Cg==?="],
)  # fmt: skip
def test_a_name_or_address_cannot_end_a_header(poison: str) -> None:
    for person in (replace(ANA, name=f"Ána{poison}"), replace(ANA, email=f"ana{poison}@example.org")):
        with pytest.raises(Permanent) as refused:
            mail.write(sign_in(person), CONFIG, now=NOW)
        assert refused.value.code == "header_unsafe"


@pytest.mark.parametrize("email", ["", "ana", "ana@", "@example.org", "ana@example.org, eve@example.org", "a b@c.d"])
def test_what_is_no_address_gets_no_mail(email: str) -> None:
    with pytest.raises(Permanent) as refused:
        mail.write(sign_in(replace(ANA, email=email)), CONFIG, now=NOW)
    assert refused.value.code == "address_unusable"


@pytest.mark.parametrize("name", ['A "b" <c@d.e>', "Ana, Eve <eve@example.org>", "<b>Ána</b>", "{{ url }}"])
def test_a_strange_name_stays_a_name(name: str) -> None:
    message = read(sign_in(replace(ANA, name=name)))
    (address,) = message["To"].addresses
    assert (address.display_name, address.addr_spec) == (name, "ana@example.org")
    written = letter(CASES[1])
    assert isinstance(written.subject, Booking)
    other = replace(written, subject=replace(written.subject, other=replace(BRUNO, name=name)))
    message = read(other)
    assert text(message)[0] == f"Você confirmou a supervisão com {name}."
    escaped = name.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;")
    assert shown(part(message, "text/html"))[1] == f"Você confirmou a supervisão com {escaped}."


def test_a_long_name_is_folded_and_read_back() -> None:
    name = " ".join(["Ção"] * 25)
    content = mail.write(sign_in(replace(ANA, name=name)), CONFIG, now=NOW).content
    # The modern parser of Python 3.11 puts spaces between the encoded words of a phrase; the old one does not.
    assert str(make_header(decode_header(message_from_bytes(content)["To"]))) == f"{name} <ana@example.org>"


def test_a_domain_beyond_ascii_is_the_same_in_envelope_header_and_entry() -> None:
    written = letter(CASES[1])
    envelope = mail.write(replace(written, recipient=replace(ANA, email="ana@münchen.example")), CONFIG, now=NOW)
    message = message_from_bytes(envelope.content, policy=SMTP)
    assert isinstance(message, EmailMessage)
    (entry,) = Calendar.from_ical(part(message, "text/calendar")).events
    assert envelope.recipient == "ana@xn--mnchen-3ya.example"
    assert message["To"] == "Ana <ana@xn--mnchen-3ya.example>"
    assert entry["ATTENDEE"] == "mailto:ana@xn--mnchen-3ya.example"


@pytest.mark.parametrize("case", NAMED)
def test_every_line_fits_and_ends_as_smtp_wants_it(case: Case) -> None:
    """RFC 5321, 2.3.8 and 4.5.3.1.6; all of it is ASCII, so that no server has to convert it."""
    content = mail.write(letter(case), CONFIG, now=NOW).content
    assert content.isascii()
    assert content.count(b"\n") == content.count(b"\r") == content.count(b"\r\n")
    assert max(map(len, content.split(b"\r\n"))) <= 998


def test_a_kind_is_a_folder_of_three_files() -> None:
    folders = {path.name: sorted(file.name for file in path.iterdir()) for path in MAILS.iterdir() if path.is_dir()}
    assert folders == {kind: ["body.html", "body.txt", "subject.txt"] for kind in KINDS}


def test_the_sentences_of_both_languages_are_the_same_ones() -> None:
    found = {}
    for language in ("pt_BR", "en"):
        catalogue = (MAILS.parent.parent / "locales" / language / "mail.po").read_text(encoding="utf-8")
        found[language] = re.findall(r'^msgid "(.+)"$', catalogue, flags=re.M)
    assert found["pt_BR"] == found["en"]


# Proposals and offers: none of them changes a calendar.

LATER_AT = datetime(2026, 11, 26, 18, 0, tzinfo=UTC)
LATER = ["2026-11-26T18:00:00+00:00", "2026-11-26T18:50:00+00:00"]
ANSWER_BY = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
STAYS_PT, STAYS_EN = "A supervisão continua no horário de antes.", "The appointment stays at its time."
MOVES = [
    Case(
        "move.proposed", "bruno", Status.CONFIRMED, "ana",
        says(("Novo horário proposto", "Ana propõe um novo horário.", "O horário de agora vale até você aceitar."),
             ("New time proposed", "Ana proposes a new time.", "The present time holds until you accept.")),
    ),
    Case(
        "move.proposed", "bruno", Status.REQUESTED, "ana",
        says(("Novo horário proposto", "Ana propõe um novo horário.",
              "Seu pedido fica no horário de agora até você aceitar."),
             ("New time proposed", "Ana proposes a new time.",
              "Your request stays at the present time until you accept.")),
    ),
    Case(
        "move.refused", "bruno", Status.CONFIRMED, "ana",
        says(("Novo horário recusado", "Ana recusou o novo horário.", STAYS_PT),
             ("New time declined", "Ana declined the new time.", STAYS_EN)),
    ),
    Case(
        "move.refused", "ana", Status.REQUESTED, "bruno",
        says(("Novo horário recusado", "Bruno recusou o novo horário.", "O pedido continua no horário de antes."),
             ("New time declined", "Bruno declined the new time.", "The request stays at its time.")),
    ),
    Case(
        "move.withdrawn", "ana", Status.CONFIRMED, "bruno",
        says(("Proposta retirada", "Bruno retirou a proposta de um novo horário.", STAYS_PT),
             ("Proposal withdrawn", "Bruno withdrew the proposal of a new time.", STAYS_EN)),
    ),
    Case(
        "move.lapsed", "ana", Status.CONFIRMED, None,
        says(("Proposta sem resposta", "A proposta de um novo horário para a supervisão com Bruno ficou sem resposta.",
              STAYS_PT),
             ("Proposal unanswered", "The proposal of a new time for the appointment with Bruno went unanswered.",
              STAYS_EN)),
    ),
]  # fmt: skip


def move(case: Case, language: str = "pt-BR") -> Letter:
    written = letter(case, language, place="Rua A, 5")
    assert isinstance(written.subject, Booking)
    by = ANA.id if case.by == "ana" else BRUNO.id
    proposal = Proposal(uuid.UUID(int=5), by, LATER_AT, LATER_AT + timedelta(minutes=50), 0, 0, ANSWER_BY)
    proposed = case.kind == "move.proposed"
    details: dict[str, object] = {"proposal": str(proposal.id)} if proposed else {"proposed": LATER}
    row = replace(written.notification, details=written.notification.details | details)
    about = replace(written.subject.appointment, proposal=proposal if proposed else None)
    return replace(written, notification=row, subject=replace(written.subject, appointment=about))


@pytest.mark.parametrize("language", ["pt-BR", "en"])
@pytest.mark.parametrize("case", named(MOVES))
def test_a_mail_about_a_proposal_names_both_times(case: Case, language: str) -> None:
    message = read(move(case, language))
    title, lead, then = case.says[language]
    day = "qui., 26/11" if language == "pt-BR" else "Thu 26 Nov"
    assert message["Subject"] == f"{title}: {day}, {'15:00' if case.to == 'ana' else '18:00'}"
    assert text(message)[:2] == [lead, then]
    assert shown(part(message, "text/html"))[:3] == ["Visavis", lead, then]
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/alternative",
        "text/plain",
        "text/html",
    ]


def test_the_whole_text_of_a_proposal() -> None:
    assert text(read(move(MOVES[0])))[2:11] == [
        "",
        "Data: quinta-feira, 26 de novembro",
        "Horário: 18:00–18:50 (Lisboa; 15:00–15:50 em São Paulo)",
        "Agora: ter., 24/11, 13:00–13:50 (Lisboa)",
        "Resposta até: ter., 24/11, 09:00 (Lisboa)",
        "Com: Ana",
        "Onde: Rua A, 5",
        "",
        "Responder:",
    ]


def test_the_whole_text_of_what_stays() -> None:
    assert text(read(move(MOVES[2], "en")))[2:10] == [
        "",
        "Date: Tuesday, 24 November",
        "Time: 13:00–13:50 (Lisbon; 10:00–10:50 in Sao Paulo)",
        "Proposed: Thu 26 Nov, 18:00–18:50 (Lisbon)",
        "With: Ana",
        "Where: Rua A, 5",
        "",
        "See the appointment:",
    ]


@pytest.mark.parametrize("kind", ["appointment.requested", "appointment.rescheduled"])
def test_a_request_says_until_when_it_is_open(kind: str) -> None:
    written = letter(Case(kind, "ana", Status.REQUESTED, "bruno", {}))
    assert isinstance(written.subject, Booking)
    about = replace(written.subject.appointment, answer_by=ANSWER_BY)
    message = read(replace(written, subject=replace(written.subject, appointment=about)))
    assert [line for line in text(message) if line.startswith("Resposta")] == [
        "Resposta até: ter., 24/11, 06:00 (São Paulo)"
    ]
    assert "ter., 24/11, 06:00 (São Paulo)" in shown(part(message, "text/html"))


def offer(language: str = "pt-BR") -> Letter:
    recipient = replace(BRUNO, language=language)
    kept = Offer(LATER_AT, LATER_AT + timedelta(minutes=50), ANSWER_BY)
    row = notification("wait.offered", recipient, {"by": None, "slot": LATER, "until": ANSWER_BY.isoformat()}, None)
    return Letter(row, recipient, Offering(kept, ANA))


@pytest.mark.parametrize(
    ("language", "subject", "expected"),
    [
        ("pt-BR", "Horário livre para você: qui., 26/11, 18:00", [
            "Um horário com Ana ficou livre.",
            "Ele espera por você até o fim do prazo; depois é oferecido a outra pessoa.", "",
            "Data: quinta-feira, 26 de novembro", "Horário: 18:00–18:50 (Lisboa; 15:00–15:50 em São Paulo)",
            "Reservado para você até: ter., 24/11, 09:00 (Lisboa)", "Com: Ana", "",
            "Responder:", f"{BASE_URL}/appointments", "",
        ]),
        ("en", "A time for you: Thu 26 Nov, 18:00", [
            "A time with Ana has become free.",
            "It waits for you until the deadline; then it is offered to somebody else.", "",
            "Date: Thursday, 26 November", "Time: 18:00–18:50 (Lisbon; 15:00–15:50 in Sao Paulo)",
            "Kept for you until: Tue 24 Nov, 09:00 (Lisbon)", "With: Ana", "",
            "Answer:", f"{BASE_URL}/appointments", "",
        ]),
    ],
)  # fmt: skip
def test_an_offer_says_until_when_the_time_is_kept(language: str, subject: str, expected: list[str]) -> None:
    message = read(offer(language))
    assert message["Subject"] == subject
    link = f"{BASE_URL}/unsubscribe/{seals.unsubscribe_token(SECRET, BRUNO.id, Topic.WAITS)}"
    assert text(message)[: len(expected)] == expected
    assert text(message)[-1] == link
    assert message["List-Unsubscribe"] == f"<{link}>"
    assert shown(part(message, "text/html"))[1:3] == expected[:2]
    assert "text/calendar" not in [part.get_content_type() for part in message.walk()]


# Series.

SERIES = Series(
    uuid.UUID(int=20), uuid.UUID(int=8), "FREQ=WEEKLY;BYDAY=TU;COUNT=4", STARTS_AT, STARTS_AT + timedelta(minutes=50),
    "America/Sao_Paulo", 1,
)  # fmt: skip
TIMES_PT = [
    "  ter., 24/11, 10:00–10:50 (13:00–13:50 em Lisboa)",
    "  ter., 01/12, 10:00–10:50 (13:00–13:50 em Lisboa)",
    "  ter., 15/12, 10:00–10:50 (13:00–13:50 em Lisboa)",
]
GROUPS = [
    Case(
        "series.requested", "ana", Status.REQUESTED, "bruno",
        says(("Pedido de série de supervisão", "Bruno pede uma série de supervisões.",
              "Confirme ou recuse; até lá, os horários ficam reservados."),
             ("Supervision series requested", "Bruno asks for a series of appointments.",
              "Confirm or decline them; the times are held until then.")),
    ),
    Case(
        "series.booked", "ana", Status.CONFIRMED, "ana",
        says(("Série de supervisão marcada", "Você marcou uma série de supervisões com Bruno.",
              "Bruno já sabe e pode recusar cada uma até o início."),
             ("Supervision series booked", "You booked a series of appointments with Bruno.",
              "Bruno has been told and can decline each of them until it begins.")),
    ),
    Case(
        "series.booked", "bruno", Status.CONFIRMED, "ana",
        says(("Série de supervisão marcada", "Ana marcou uma série de supervisões com você.",
              "Se não puder, recuse todas ou algumas antes do início."),
             ("Supervision series booked", "Ana booked a series of appointments with you.",
              "If you cannot come, decline all or some of them before they begin.")),
    ),
    Case(
        "series.confirmed", "bruno", Status.CONFIRMED, "ana",
        says(("Série de supervisão confirmada", "Ana confirmou estas supervisões da série.", CHANGE_PT),
             ("Supervision series confirmed", "Ana confirmed these appointments of the series.", CHANGE_EN)),
    ),
    Case(
        "series.confirmed", "ana", Status.CONFIRMED, "ana",
        says(("Série de supervisão confirmada", "Você confirmou estas supervisões da série com Bruno.", CHANGE_PT),
             ("Supervision series confirmed", "You confirmed these appointments of the series with Bruno.",
              CHANGE_EN)),
    ),
    Case(
        "series.confirmed", "ana", Status.CONFIRMED, "bruno",
        says(("Série de supervisão confirmada",
              "Bruno marcou uma série de supervisões com você, e ela já está confirmada.", CHANGE_PT),
             ("Supervision series confirmed", "Bruno booked a series of appointments with you, and it is confirmed.",
              CHANGE_EN)),
        (("automatic", True),),
    ),
    Case(
        "series.confirmed", "bruno", Status.CONFIRMED, "bruno",
        says(("Série de supervisão confirmada", "Sua série de supervisões com Ana está confirmada.", CHANGE_PT),
             ("Supervision series confirmed", "Your series of appointments with Ana is confirmed.", CHANGE_EN)),
        (("automatic", True),),
    ),
    Case(
        "series.declined", "bruno", Status.DECLINED, "ana",
        says(("Supervisões da série recusadas", "Ana recusou estas supervisões da série.",
              "Você pode pedir outros horários."),
             ("Supervision series declined", "Ana declined these appointments of the series.",
              "You can ask for other times.")),
    ),
    Case(
        "series.declined", "ana", Status.DECLINED, "ana",
        says(("Supervisões da série recusadas", "Você recusou estas supervisões da série com Bruno.",
              "Os horários voltaram a ficar livres."),
             ("Supervision series declined", "You declined these appointments of the series with Bruno.",
              "The times are free again.")),
    ),
    Case(
        "series.declined", "ana", Status.DECLINED, None,
        says(("Pedido de série sem resposta", "Estes pedidos de Bruno ficaram sem resposta.",
              "Eles não valem mais. Bruno pode pedir outros horários."),
             ("Series request unanswered", "These requests from Bruno went unanswered.",
              "They are no longer valid. Bruno can ask for other times.")),
        (("lapsed", True),),
    ),
    Case(
        "series.declined", "bruno", Status.DECLINED, None,
        says(("Pedido de série sem resposta", "Estes seus pedidos a Ana ficaram sem resposta.",
              "Eles não valem mais. Você pode pedir outros horários."),
             ("Series request unanswered", "These requests of yours to Ana went unanswered.",
              "They are no longer valid. You can ask for other times.")),
        (("lapsed", True),),
    ),
    Case(
        "series.cancelled", "ana", Status.CANCELLED, "bruno",
        says(("Supervisões da série canceladas", "Bruno cancelou estas supervisões da série.",
              "Os horários voltaram a ficar livres."),
             ("Supervision series cancelled", "Bruno cancelled these appointments of the series.",
              "The times are free again.")),
    ),
    Case(
        "series.cancelled", "bruno", Status.CANCELLED, "bruno",
        says(("Supervisões da série canceladas", "Você cancelou estas supervisões da série com Ana.",
              "Você pode pedir outros horários."),
             ("Supervision series cancelled", "You cancelled these appointments of the series with Ana.",
              "You can ask for other times.")),
    ),
    Case(
        "series.rescheduled", "bruno", Status.CONFIRMED, "ana",
        says(("Supervisões da série remarcadas", "Ana aceitou novos horários para estas supervisões da série.",
              "Os horários anteriores não valem mais."),
             ("Supervision series moved", "Ana accepted new times for these appointments of the series.",
              "The earlier times no longer hold.")),
    ),
    Case(
        "series.rescheduled", "ana", Status.CONFIRMED, "ana",
        says(("Supervisões da série remarcadas",
              "Você aceitou novos horários para estas supervisões da série com Bruno.",
              "Os horários anteriores não valem mais."),
             ("Supervision series moved", "You accepted new times for these appointments of the series with Bruno.",
              "The earlier times no longer hold.")),
    ),
    Case(
        "series.rescheduled", "ana", Status.CONFIRMED, "bruno",
        says(("Supervisões da série remarcadas", "Estas supervisões da série com Bruno mudaram de horário.",
              "Os horários anteriores não valem mais."),
             ("Supervision series moved", "These appointments of the series with Bruno have new times.",
              "The earlier times no longer hold.")),
    ),
    Case(
        "series.rescheduled", "ana", Status.REQUESTED, "bruno",
        says(("Novos horários a confirmar", "Bruno pede novos horários para a série.",
              "Confirme ou recuse; até lá, os horários ficam reservados."),
             ("New times to be confirmed", "Bruno asks for new times for the series.",
              "Confirm or decline them; the times are held until then.")),
    ),
    Case(
        "series.rescheduled", "bruno", Status.REQUESTED, "bruno",
        says(("Novos horários a confirmar", "Você pediu a Ana novos horários para a série.", "Falta Ana confirmar."),
             ("New times to be confirmed", "You asked Ana for new times for the series.",
              "Ana has yet to confirm.")),
    ),
    Case(
        "series.proposed", "bruno", Status.CONFIRMED, "ana",
        says(("Novos horários propostos", "Ana propõe novos horários para estas supervisões da série.",
              "Os horários de agora valem até você aceitar."),
             ("New times proposed", "Ana proposes new times for these appointments of the series.",
              "The present times hold until you accept.")),
    ),
    Case(
        "series.refused", "ana", Status.CONFIRMED, "bruno",
        says(("Novos horários recusados", "Bruno recusou mudar a série para estes horários.",
              "Os horários de antes continuam valendo."),
             ("New times declined", "Bruno declined to move the series to these times.",
              "The times from before still hold.")),
    ),
    Case(
        "series.withdrawn", "bruno", Status.CONFIRMED, "ana",
        says(("Proposta retirada", "Ana retirou a proposta de mudar a série para estes horários.",
              "Os horários de antes continuam valendo."),
             ("Proposal withdrawn", "Ana withdrew the proposal to move the series to these times.",
              "The times from before still hold.")),
    ),
    Case(
        "series.lapsed", "bruno", Status.CONFIRMED, None,
        says(("Proposta sem resposta", "A proposta de mudar a série com Ana para estes horários ficou sem resposta.",
              "Os horários de antes continuam valendo."),
             ("Proposal unanswered", "The proposal to move the series with Ana to these times went unanswered.",
              "The times from before still hold.")),
    ),
]  # fmt: skip
ABOUT_PROPOSALS = ("series.proposed", "series.refused", "series.withdrawn", "series.lapsed")
WEEKS = (0, 1, 3)  # the third start of the rule was never booked


def group(case: Case, language: str = "pt-BR", *, standing: int = 0, count: int = 3) -> Letter:
    """Some of a series. `standing` of its occurrences are confirmed and not told of."""
    people = {"ana": replace(ANA, language=language), "bruno": replace(BRUNO, language=language)}
    recipient, other = people[case.to], people["bruno" if case.to == "ana" else "ana"]
    weeks = WEEKS if count == 3 else range(count)
    occurrences = []
    for number, week in enumerate(weeks):
        at = STARTS_AT + timedelta(weeks=week)
        shift = timedelta(hours=3 if case.kind == "series.rescheduled" else 0)
        proposal = Proposal(
            uuid.UUID(int=50 + number), ANA.id, at + timedelta(days=1), at + timedelta(days=1, minutes=50), 0, 0,
            ANSWER_BY + timedelta(hours=number),
        )  # fmt: skip
        occurrences.append(
            Appointment(
                uuid.UUID(int=30 + number), SERIES.pair_id, ANA.id, BRUNO.id, at + shift,
                at + shift + timedelta(minutes=50), Status.CONFIRMED if number < standing else case.status, 1,
                Mode.ONLINE, "", answer_by=ANSWER_BY if case.status is Status.REQUESTED else None,
                series_id=SERIES.id, series_at=at, proposal=proposal if case.kind == "series.proposed" else None,
            )
        )  # fmt: skip
    told = occurrences[standing:]
    details: dict[str, object] = {
        "series": str(SERIES.id), "by": case.by and str(people[case.by].id), "skipped": [],
        "appointments": [str(one.id) for one in told], "revisions": [one.revision for one in told],
        **dict(case.details),
    }  # fmt: skip
    if case.kind == "series.rescheduled":
        details["was"] = [one.series_at.isoformat() for one in told if one.series_at]
    elif case.kind == "series.proposed":
        details["proposals"] = [str(one.proposal.id) for one in told if one.proposal]
    elif case.kind in ABOUT_PROPOSALS:
        details["proposed"] = [LATER]
    row = replace(notification(case.kind, recipient, details, None), pair_id=SERIES.pair_id)
    longer = replace(SERIES, rule=f"FREQ=WEEKLY;BYDAY=TU;COUNT={max(4, count)}")
    return Letter(row, recipient, Group(longer, tuple(told), tuple(occurrences), other))


@pytest.mark.parametrize("language", ["pt-BR", "en"])
@pytest.mark.parametrize("case", named(GROUPS))
def test_a_mail_about_a_series_says_what_happened_and_what_one_can_do(case: Case, language: str) -> None:
    message = read(group(case, language))
    title, lead, then = case.says[language]
    moved, proposed, dropped = (
        case.kind == kind for kind in ("series.rescheduled", "series.proposed", "series.refused")
    )
    dropped |= case.kind in ("series.withdrawn", "series.lapsed")
    hour = (13 if case.to == "bruno" else 10) + (3 if moved else 5 if dropped else 0)
    weekday, day = (3, 26) if dropped else (2, 25) if proposed else (1, 24)
    if language == "pt-BR":
        when = f"{('ter', 'qua', 'qui')[weekday - 1]}., {day}/11, {hour}:00"
        assert message["Subject"] == f"{title}: {when if dropped else f'3 horários desde {when}'}"
    else:
        when = f"{('Tue', 'Wed', 'Thu')[weekday - 1]} {day} Nov, {hour}:00"
        assert message["Subject"] == f"{title}: {when if dropped else f'3 times from {when}'}"
    assert text(message)[:2] == [lead, then]
    html = part(message, "text/html")
    assert shown(html)[:3] == ["Visavis", lead, then]
    assert set(re.findall(r'class="([a-z]+)"(?![^>]*style=)', html)) == set()
    assert [part.get_content_type() for part in message.walk()] == (
        ["multipart/alternative", "text/plain", "text/html"]
        if case.kind in ABOUT_PROPOSALS
        else ["multipart/mixed", "multipart/alternative", "text/plain", "text/html", "text/calendar", "application/ics"]
    )


def test_the_whole_text_of_a_series() -> None:
    details = (("skipped", ["2026-12-08T13:00:00+00:00"]),)
    case = replace(GROUPS[0], details=details)
    assert text(read(group(case))) == [
        "Bruno pede uma série de supervisões.",
        "Confirme ou recuse; até lá, os horários ficam reservados.",
        "",
        "Horários (São Paulo):",
        *TIMES_PT,
        "Ficaram de fora: ter., 08/12, 10:00",
        "Resposta até: ter., 24/11, 06:00 (São Paulo)",
        "Repetição: toda semana",
        "Com: Bruno",
        "Onde: Online",
        "",
        "Responder ao pedido:",
        f"{BASE_URL}/appointments/{uuid.UUID(int=30)}?scope=all",
        "",
        "-- ",
        *FOOT_PT,
    ]


def test_the_whole_page_of_a_late_cancellation_in_a_series() -> None:
    case = next(case for case in GROUPS if (case.kind, case.to) == ("series.cancelled", "bruno"))
    late = replace(case, details=(("late", [str(uuid.UUID(int=30))]),))
    assert shown(part(read(group(late, "en")), "text/html"))[1:-2] == [
        "You cancelled these appointments of the series with Ana.",
        "You can ask for other times.",
        "The cancellation deadline had passed for one of them.",
        "Times (Lisbon)",
        "Tue 24 Nov, 13:00–13:50",
        "10:00–10:50 in Sao Paulo",
        "Tue 1 Dec, 13:00–13:50",
        "10:00–10:50 in Sao Paulo",
        "Tue 15 Dec, 13:00–13:50",
        "10:00–10:50 in Sao Paulo",
        "Repeats",
        "every week",
        "With",
        "Ana",
        "Choose another time",
    ]


def test_moves_of_a_series_are_told_with_what_they_replace() -> None:
    case = next(case for case in GROUPS if case.kind == "series.proposed")
    skipped = replace(case, details=(("skipped", ["2026-12-09T13:00:00+00:00"]),))
    assert text(read(group(skipped)))[3:10] == [
        "Horários (Lisboa):",
        "  qua., 25/11, 13:00–13:50 (10:00–10:50 em São Paulo; em vez de ter., 24/11, 13:00–13:50)",
        "  qua., 02/12, 13:00–13:50 (10:00–10:50 em São Paulo; em vez de ter., 01/12, 13:00–13:50)",
        "  qua., 16/12, 13:00–13:50 (10:00–10:50 em São Paulo; em vez de ter., 15/12, 13:00–13:50)",
        "Sem lugar nestes horários; as outras ficaram onde estavam: qua., 09/12, 13:00",
        "Resposta até: ter., 24/11, 09:00 (Lisboa)",
        "Repetição: toda semana",
    ]


def test_of_a_long_series_the_first_times_are_told() -> None:
    lines = text(read(group(GROUPS[0], "en", count=30)))
    assert len([line for line in lines if line.startswith("  ")]) == 13
    assert lines[4 + 12] == "  and 18 more"


@pytest.mark.parametrize("case", named([case for case in GROUPS if case.kind not in ABOUT_PROPOSALS]))
def test_the_calendar_of_a_series_says_the_same(case: Case) -> None:
    message = read(group(case))
    invitation = part(message, "text/calendar")
    assert invitation.replace("\r\n", "\n") == part(message, "application/ics").replace("\r\n", "\n")
    calendar = Calendar.from_ical(invitation)
    gone = case.status in (Status.DECLINED, Status.CANCELLED)
    master, *changed = calendar.events
    assert (str(calendar["METHOD"]), str(master["STATUS"])) == (
        "CANCEL" if gone else "REQUEST",
        "CANCELLED" if gone else "TENTATIVE" if case.status is Status.REQUESTED else "CONFIRMED",
    )
    (calendar_part,) = (part for part in message.walk() if part.get_content_type() == "text/calendar")
    assert calendar_part["Content-Type"].params["method"] == str(calendar["METHOD"])
    assert {str(one["UID"]) for one in calendar.events} == {f"{SERIES.id}@clinic.example.org"}
    assert (master.start, master["SEQUENCE"], master.DTSTAMP) == (STARTS_AT, 1 + gone, NOW - timedelta(seconds=5))
    assert ("RRULE" in master, "EXDATE" in master) == (not gone, not gone)
    assert len(changed) == (3 if case.kind == "series.rescheduled" else 0)


def test_what_is_left_of_a_series_stays_in_the_calendar() -> None:
    case = next(case for case in GROUPS if (case.kind, case.to) == ("series.cancelled", "ana"))
    calendar = Calendar.from_ical(part(read(group(case, standing=1)), "text/calendar"))
    assert [(str(one["STATUS"]), one.decoded("RECURRENCE-ID")) for one in calendar.events] == [
        ("CANCELLED", STARTS_AT + timedelta(weeks=week)) for week in WEEKS[1:]
    ]


@pytest.mark.parametrize(
    ("kind", "to", "status", "by", "answer"),
    [
        ("series.requested", "ana", Status.REQUESTED, "bruno", "NEEDS-ACTION"),
        ("series.booked", "bruno", Status.CONFIRMED, "ana", "NEEDS-ACTION"),
        ("series.booked", "ana", Status.CONFIRMED, "ana", "ACCEPTED"),
        ("series.confirmed", "bruno", Status.CONFIRMED, "ana", "ACCEPTED"),
        ("series.rescheduled", "bruno", Status.REQUESTED, "bruno", "ACCEPTED"),
    ],
)
def test_who_asked_for_a_series_has_accepted(kind: str, to: str, status: Status, by: str, answer: str) -> None:
    entries = Calendar.from_ical(part(read(group(Case(kind, to, status, by, {}))), "text/calendar")).events
    assert {str(entry["ATTENDEE"].params["PARTSTAT"]) for entry in entries} == {answer}


def test_an_occurrence_alone_is_mailed_as_a_part_of_its_series() -> None:
    written = letter(CASES[2])
    assert isinstance(written.subject, Booking)
    about = replace(written.subject.appointment, series_id=SERIES.id, series_at=STARTS_AT)
    message = read(replace(written, subject=Booking(about, ANA, SERIES)))
    (entry,) = Calendar.from_ical(part(message, "text/calendar")).events
    assert (str(entry["UID"]), entry["SEQUENCE"]) == (f"{SERIES.id}@clinic.example.org", 3)
    assert entry.decoded("RECURRENCE-ID") == STARTS_AT
    assert re.findall(r'href="([^"]*)"', part(message, "text/html")) == [
        f"{BASE_URL}/appointments/{about.id}",
        f"{BASE_URL}/preferences",
    ]


# Every kind there is.


@pytest.mark.parametrize("language", ["pt-BR", "en"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_mail_is_written_in_every_language(kind: str, language: str) -> None:
    """StrictUndefined and the catalogue raise for anything that is missing."""
    message = read(samples.letter(kind, language, now=NOW))
    html, lines = part(message, "text/html"), text(message)
    subject = str(message["Subject"])
    assert re.findall(r"<html lang=\"(.*?)\"", html) == [language]
    assert [unescape(one) for one in re.findall(r"<title>(.*?)</title>", html)] == [subject]
    assert re.findall(r'role="article" aria-roledescription="email" aria-label="(.*?)" lang="(.*?)"', html) == [
        (escape(subject), language)
    ]
    assert [re.sub("<.*?>", "", one) for one in re.findall(r"<h1.*?</h1>", html)] == [escape(lines[0])]
    assert set(re.findall(r"<table(?: [a-z]+=\"[^\"]*\")*?(?: role=\"(.*?)\")", html)) == {"presentation"}
    assert html.count("<table") == html.count('role="presentation"')
    assert re.findall(r"<a [^>]*>\s*</a>|<img", html) == []
    assert (f"{BASE_URL}/preferences" in lines) is (kind not in ("sign_in", *contents.ACCOUNT))


def test_there_is_a_sample_of_each_kind() -> None:
    assert list(samples.CASES) == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_what_may_be_unsubscribed_says_how(kind: str) -> None:
    """RFC 2369 and RFC 8058; what is told of appointments and of security always comes, or is turned off one by one."""
    written = samples.letter(kind, "en", now=NOW)
    message = read(written)
    topic = {
        "appointment.reminder": Topic.REMINDERS,
        "wait.offered": Topic.WAITS,
        "room.unread": Topic.UNREAD,
    }.get(kind)
    if topic is None:
        assert (message["List-Unsubscribe"], message["List-Unsubscribe-Post"]) == (None, None)
        assert "/unsubscribe/" not in message.as_string()
        return
    link = f"{BASE_URL}/unsubscribe/{seals.unsubscribe_token(SECRET, written.recipient.id, topic)}"
    assert (message["List-Unsubscribe"], message["List-Unsubscribe-Post"]) == (
        f"<{link}>",
        "List-Unsubscribe=One-Click",
    )
    assert text(message)[-1] == link
    assert re.findall(r'href="([^"]*/unsubscribe/[^"]*)"', part(message, "text/html")) == [link]


LISTENING = make_config(25).model_copy(
    update={"inbound": InboundConfig.model_validate({"domain": "replies.example.org", "authserv_id": "mx.example.org"})}
)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_and_what_comes_back_have_addresses_of_their_own(kind: str) -> None:
    written = samples.letter(kind, "pt-BR", now=NOW)
    envelope = mail.write(written, LISTENING, now=NOW)
    message = message_from_bytes(envelope.content, policy=SMTP)
    assert isinstance(message, EmailMessage)
    replies = seals.reply_address(SECRET, written.recipient.id, "replies.example.org")
    assert envelope.sender == seals.return_address(SECRET, written.notification.id, "replies.example.org")
    assert (message["From"], message["Reply-To"]) == ("Visavis <visavis@clinic.example.org>", replies)
    assert message["Message-ID"] == f"<{written.notification.id}@clinic.example.org>"
    for one in message.walk():
        if one.get_content_type() == "text/calendar":
            entries = Calendar.from_ical(part(message, "text/calendar")).events
            assert {str(entry["ORGANIZER"]) for entry in entries} == {f"mailto:{replies}"}


def test_a_calendar_rings_when_its_owner_wants_it() -> None:
    written = replace(samples.letter("appointment.confirmed", "en", now=NOW), wishes=Preferences((2880, 120), (5,)))
    (entry,) = Calendar.from_ical(part(read(written), "text/calendar")).events
    assert [alarm.TRIGGER for alarm in entry.walk("VALARM") if isinstance(alarm, Alarm)] == [
        timedelta(minutes=-minutes) for minutes in (2880, 120, 5)
    ]


@pytest.mark.parametrize(
    ("minutes", "sent", "pt", "en"),
    [
        (1440, "2026-11-23T13:00", "amanhã", "tomorrow"),
        (1440, "2026-11-24T11:00", "hoje", "today"),
        (4320, "2026-11-21T13:00", "em 3 dias", "in 3 days"),
        (60, "2026-11-24T12:00", "em 1 hora", "in 1 hour"),
        (60, "2026-11-24T12:04", "em 1 hora", "in 1 hour"),
        (60, "2026-11-24T12:30", "hoje", "today"),
        (15, "2026-11-24T12:45", "em 15 minutos", "in 15 minutes"),
        (90, "2026-11-24T11:30", "em 90 minutos", "in 90 minutes"),
    ],
)
def test_a_reminder_says_how_long_until_then(minutes: int, sent: str, pt: str, en: str) -> None:
    """As planned; where it was held back or had to be tried again, no more than what is still true."""
    case = Case("appointment.reminder", "bruno", Status.CONFIRMED, None, {}, (("minutes", minutes),))
    at = datetime.fromisoformat(f"{sent}+00:00")
    for language, until in (("pt-BR", pt), ("en", en)):
        content = mail.write(letter(case, language), CONFIG, now=at).content
        message = message_from_bytes(content, policy=SMTP)
        assert isinstance(message, EmailMessage)
        title, lead = (
            ("Supervisão", "Sua supervisão com Ana é")
            if language == "pt-BR"
            else ("Supervision", "Your appointment with Ana is")
        )
        day = "ter., 24/11" if language == "pt-BR" else "Tue 24 Nov"
        assert message["Subject"] == f"{title} {until}: {day}, 13:00"
        assert text(message)[0] == f"{lead} {until}, {'às' if language == 'pt-BR' else 'at'} 13:00."


@pytest.mark.parametrize("kind", ["appointment.reminder", "mailbox.stopped", "room.unread", "sign_in"])
def test_what_changes_no_calendar_brings_no_entry(kind: str) -> None:
    message = read(samples.letter(kind, "en", now=NOW))
    assert [part.get_content_type() for part in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert "calendar.google.com" not in part(message, "text/html")


@pytest.mark.parametrize("name", ["Ana", "Ánã" * 20, "x" * 90, "a\\\\,b;" * 12])
@pytest.mark.parametrize("kind", ["appointment.requested", "series.requested"])
def test_an_entry_is_folded_as_the_library_folds_it(kind: str, name: str) -> None:
    """RFC 5545, 3.1; requests have no alarms, whose unit the library would change."""
    written = samples.letter(kind, "pt-BR", now=NOW)
    assert isinstance(written.subject, Booking | Group)
    named = replace(written, subject=replace(written.subject, other=replace(written.subject.other, name=name)))
    entry = part(read(named), "application/ics").encode()
    assert entry == Calendar.from_ical(entry).to_ical()
    assert max(map(len, entry.split(b"\r\n"))) <= 75


@pytest.mark.parametrize("language", ["pt-BR", "en"])
@pytest.mark.parametrize("kind", letters.OF_ROOM)
def test_a_room_in_trouble_is_named_by_its_two(language: str, kind: str) -> None:
    message = read(samples.letter(kind, language, now=NOW))
    assert "Ana Ribeiro – Bruno Tavares" in text(message)
    assert '<p class="small"' in part(message, "text/html")
    assert ">Ana Ribeiro – Bruno Tavares</p>" in part(message, "text/html")


@pytest.mark.parametrize(
    ("language", "lead", "subject"),
    [
        ("en", "Bruno Tavares has left their supervision room.", "Somebody has left a supervision room"),
        ("pt-BR", "Bruno Tavares saiu da sala de supervisão.", "Alguém saiu de uma sala de supervisão"),
    ],
)
def test_an_admin_is_told_who_left_but_not_in_the_subject(language: str, lead: str, subject: str) -> None:
    message = read(samples.letter("room.left", language, now=NOW))
    assert message["Subject"] == subject
    assert lead in text(message)
    assert lead in part(message, "text/html")


def test_an_admin_is_told_whose_mail_comes_back() -> None:
    message = read(samples.letter("mailbox.stopped", "en", now=NOW))
    assert message["Subject"] == "Mail to Bruno Tavares is coming back"
    assert text(message)[4:11] == [
        "Person: Bruno Tavares",
        "Since: Mon 23 Nov, 12:00 (Lisbon)",
        "Refusal code: 5.1.1",
        "",
        "Open the administration:",
        f"{BASE_URL}/admin",
        "",
    ]


# What is read for a mail, from what the domain wrote.

TEN = datetime(2026, 12, 1, 13, 0, tzinfo=UTC)  # a Tuesday, 10:00 in São Paulo
HOUR = timedelta(hours=1)


async def outcomes(database: Database) -> list[tuple[str, str, str]]:
    """Every mail of the outbox but reminders, as (kind, to, subject), or `outdated` in the place of its subject."""
    found = []
    async with database.transaction() as tx:
        query = select(outbox).where(outbox.c.channel == "mail", outbox.c.kind != "appointment.reminder")
        for row in await tx.execute(query.order_by(outbox.c.position)):
            told = Notification(
                row.id, row.person_id, row.pair_id, row.appointment_id, row.revision, Channel.MAIL, row.kind,
                row.details, row.priority, row.created_at, 1, None,
            )  # fmt: skip
            try:
                written = await letters.load(tx, told)
            except Outdated:
                found.append((row.kind, "", "outdated"))
            else:
                found.append((row.kind, written.recipient.name, str(read(written)["Subject"])))
    return found


async def test_a_proposal_that_is_not_open_any_more_is_not_mailed(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = acts(pair.supervisor), acts(pair.supervisee)
    async with database.transaction() as tx:
        booked = await appointments.book(tx, ana, pair, TEN, now=now)
        await tx.execute(outbox.delete())
        await moves.reschedule(tx, ana, booked.id, TEN + HOUR, now=now)
        await moves.reschedule(tx, bruno, booked.id, TEN + 2 * HOUR, now=now)
    assert await outcomes(database) == [
        ("move.proposed", "", "outdated"),
        ("move.proposed", "Ana", "Novo horário proposto: ter., 01/12, 12:00"),
    ]
    async with database.transaction() as tx:
        await moves.withdraw(tx, bruno, booked.id, now=now)
    assert (await outcomes(database))[1:] == [
        ("move.proposed", "", "outdated"),
        ("move.withdrawn", "Ana", "Proposta retirada: ter., 01/12, 12:00"),
    ]
    async with database.transaction() as tx:
        await appointments.cancel(tx, ana, booked.id, now=now)
    assert (await outcomes(database))[2:] == [
        ("move.withdrawn", "", "outdated"),
        ("appointment.cancelled", "Ana", "Supervisão cancelada: ter., 01/12, 10:00"),
        ("appointment.cancelled", "Bruno", "Supervision cancelled: Tue 1 Dec, 13:00"),
    ]


async def test_an_offer_is_mailed_while_it_stands(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    clara = await add_pair(database, now=now, supervisor=pair.supervisor)
    async with database.transaction() as tx:
        booked = await appointments.book(tx, acts(pair.supervisor), pair, TEN, now=now)
        wait = await waits.join(tx, acts(clara.supervisee), clara, [(TEN, TEN + HOUR)], now=now)
        await appointments.cancel(tx, acts(pair.supervisor), booked.id, now=now)
        await tx.execute(outbox.delete())
        assert await waits.offer_freed(tx, now) == 1
    assert await outcomes(database) == [("wait.offered", "Bruno", "A time for you: Tue 1 Dec, 13:00")]
    async with database.transaction() as tx:
        await waits.pass_by(tx, acts(clara.supervisee), wait.id, now=now)
    assert (await outcomes(database))[0] == ("wait.offered", "", "outdated")


async def test_the_life_of_a_series_by_mail(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = acts(pair.supervisor), acts(pair.supervisee)
    async with database.transaction() as tx:
        asked = await series.book(tx, bruno, pair, TEN, "FREQ=WEEKLY;COUNT=4", skip=False, now=now)
    one, second, *_ = asked.booked
    assert await outcomes(database) == [
        ("series.requested", "Ana", "Pedido de série de supervisão: 4 horários desde ter., 01/12, 10:00")
    ]
    async with database.transaction() as tx:
        await groups.confirm(tx, ana, second.id, Scope.FOLLOWING, now=now)
    assert await outcomes(database) == [
        ("series.requested", "Ana", "Pedido de série de supervisão: ter., 01/12, 10:00"),
        ("series.confirmed", "Ana", "Série de supervisão confirmada: 3 horários desde ter., 08/12, 10:00"),
        ("series.confirmed", "Bruno", "Supervision series confirmed: 3 times from Tue 8 Dec, 13:00"),
    ]
    async with database.transaction() as tx:
        await tx.execute(outbox.delete())
        await appointments.decline(tx, ana, one.id, now=now)
        await shifts.reschedule(tx, ana, second.id, second.starts_at + HOUR, Scope.FOLLOWING, skip=False, now=now)
    assert (await outcomes(database))[2:] == [
        ("series.proposed", "Bruno", "New times proposed: 3 times from Tue 8 Dec, 14:00")
    ]
    async with database.transaction() as tx:
        await groups.accept(tx, bruno, second.id, Scope.ALL, now=now)
        await tx.execute(outbox.delete().where(outbox.c.kind == "appointment.declined"))
    assert await outcomes(database) == [
        ("series.proposed", "", "outdated"),
        ("series.rescheduled", "Ana", "Supervisões da série remarcadas: 3 horários desde ter., 08/12, 11:00"),
        ("series.rescheduled", "Bruno", "Supervision series moved: 3 times from Tue 8 Dec, 14:00"),
    ]
    async with database.transaction() as tx:
        await groups.cancel(tx, ana, second.id, Scope.ALL, now=now)
    assert (await outcomes(database))[1:] == [
        ("series.rescheduled", "", "outdated"),
        ("series.rescheduled", "", "outdated"),
        ("series.cancelled", "Ana", "Supervisões da série canceladas: 3 horários desde ter., 08/12, 11:00"),
        ("series.cancelled", "Bruno", "Supervision series cancelled: 3 times from Tue 8 Dec, 14:00"),
    ]
