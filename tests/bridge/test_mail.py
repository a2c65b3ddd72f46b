"""What a mail says to one person, how it is built, and what cannot be smuggled into it."""

import re
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from icalendar import Calendar

from bridge import mail
from bridge.mail import KINDS, Booking, Group, Letter, Offering, Outdated
from supervision import sign_ins
from supervision.appointments import Appointment, Proposal
from supervision.errors import Permanent
from supervision.models import Channel, Mode, Role, Status
from supervision.notifications import Notification
from supervision.people import Person
from supervision.texts import Reader
from tests.bridge.conftest import BASE_URL, SECRET, make_config

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
              "O seu prazo de cancelamento já tinha passado. O horário voltou a ficar livre."),
             ("Supervision cancelled", "Bruno cancelled your appointment.",
              "Your cancellation deadline had already passed. The time is free again.")),
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
        says(("Lembrete de supervisão", "Sua supervisão com Ana está chegando.",
              "Se não puder comparecer, remarque ou cancele antes."),
             ("Supervision reminder", "Your appointment with Ana is coming up.",
              "If you cannot come, move or cancel it before then.")),
    ),
]  # fmt: skip


def named(cases: list[Case]) -> list[ParameterSet]:
    return [
        pytest.param(case, id="-".join([case.kind, case.to, case.status, f"by-{case.by}", *dict(case.details)]))
        for case in cases
    ]


NAMED = named(CASES)


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


@pytest.mark.parametrize("case", NAMED)
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
        ("appointment.reminder", "ana", Status.CONFIRMED, None, "ACCEPTED"),
    ],
)
def test_who_asked_or_agreed_has_accepted(kind: str, to: str, status: Status, by: str | None, answer: str) -> None:
    (entry,) = Calendar.from_ical(part(read(letter(Case(kind, to, status, by, {}))), "text/calendar")).events
    assert entry["ATTENDEE"].params["PARTSTAT"] == answer


@pytest.mark.parametrize("case", NAMED)
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
        "https://visavis.example.org/appointments",
        "",
        "Add to a calendar:",
        "Google: https://calendar.google.com/calendar/render?…",
        "Outlook.com: https://outlook.live.com/calendar/0/deeplink/compose?…",
        "Office 365: https://outlook.office.com/calendar/0/deeplink/compose?…",
        "Yahoo: https://calendar.yahoo.com/?…",
        "The attached file serves every other calendar.",
        "",
        "-- ",
        "You get this notice because you have supervision through Visavis at visavis.example.org.",
        "To stop getting them, talk to whoever runs that address. Nobody reads replies to this message.",
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
        "Você recebe este aviso porque faz supervisão pelo Visavis em visavis.example.org.",
        "Para não receber mais, fale com quem administra esse endereço. Ninguém lê respostas a esta mensagem.",
    ]
    assert re.findall(r'href="([^"]*)"', html) == [f"{BASE_URL}/supervisor"]


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
    assert html.startswith(f'<!DOCTYPE html><html lang="{language}">')
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
    folders = {
        path.name: sorted(file.name for file in path.iterdir()) for path in mail.MAILS.iterdir() if path.is_dir()
    }
    assert folders == {kind: ["body.html", "body.txt", "subject.txt"] for kind in KINDS}


def test_the_sentences_of_both_languages_are_the_same_ones() -> None:
    found = {}
    for language in ("pt_BR", "en"):
        catalogue = (Path(mail.MAILS).parent.parent / "locales" / language / "mail.po").read_text(encoding="utf-8")
        found[language] = re.findall(r'^msgid "(.+)"$', catalogue, flags=re.M)
    assert found["pt_BR"] == found["en"]
