"""The words that are about the bot itself and the person: help, signing in, the time zone; and how long answers are."""

from datetime import datetime

import pytest
from sqlalchemy import select

from bot.commands import WORDS
from supervision import pairs, people
from supervision.db import Database
from supervision.errors import Refused
from supervision.models import audit_entries
from supervision.people import Person
from tests.bot.conversations import Conversation, begin

TEN = "Tue 24 Nov, 10:00–10:50"


@pytest.fixture
async def room(database: Database, now: datetime) -> Conversation:
    """It is 9:00 in São Paulo on Monday, 23 November 2026."""
    return await begin(database, now)


async def zone_of(room: Conversation, person: Person) -> str:
    async with room.database.transaction() as tx:
        return (await people.get(tx, person.id)).time_zone


async def test_help_is_short_and_names_the_rest(room: Conversation) -> None:
    said = await room.say(room.bruno, "!help")
    assert said[0] == "This is what I can do:"
    assert said[-1] == (
        "- I also know: !series, !accept, !calendar, !login, !language, !timezone, !export, !waitlist, !availability, "
        "!settings"
    )
    assert len(said) == 10
    said = await room.say(room.ana, "!ajuda")
    assert said[10] == "Para você, que supervisiona:"
    assert len(said) == 13


async def test_one_word_is_explained_in_the_reader_s_language(room: Conversation) -> None:
    explained = [
        "- !series 2 weekly 10x: books a time that repeats; or until 30/6, every other week, monthly",
        "For example: !series 2 weekly 10x, !series tue 10h fortnightly until 30/6",
        "The same: !serie",
    ]
    assert await room.say(room.bruno, "!help serie") == explained
    assert await room.say(room.bruno, "!ajuda !series") == explained
    assert (await room.say(room.ana, "!ajuda configurar"))[1:] == [
        "Por exemplo: !configurar, !configurar antecedencia 24h, !configurar anexos nao, !configurar 4821",
        "O mesmo: !settings",
    ]
    assert await room.say(room.bruno, "!help klingon") == await room.say(room.bruno, "!help")


async def test_signing_in_is_an_address_and_never_a_link_of_one_s_own(room: Conversation) -> None:
    assert await room.say(room.bruno, "!login") == [
        "You sign in here: http://localhost/sign-in. You get a link by mail; I never send one here."
    ]


@pytest.mark.parametrize(
    ("place", "zone", "city", "time", "shown"),
    [
        ("Lisbon", "Europe/Lisbon", "Lisbon", "12:00", "13:00–13:50 (Lisbon; 10:00–10:50 in Sao Paulo)"),
        ("europe/lisbon", "Europe/Lisbon", "Lisbon", "12:00", "13:00–13:50 (Lisbon; 10:00–10:50 in Sao Paulo)"),
        ("Nova York.", "America/New_York", "New York", "07:00", "08:00–08:50 (New York; 10:00–10:50 in Sao Paulo)"),
        ("utc", "UTC", "UTC", "12:00", "13:00–13:50 (UTC; 10:00–10:50 in Sao Paulo)"),
    ],
)
async def test_a_supervisee_s_zone_changes_how_times_are_shown(
    room: Conversation, place: str, zone: str, city: str, time: str, shown: str
) -> None:
    await room.say(room.bruno, "!book 24/11 10:00")
    assert await room.say(room.bruno, f"!timezone {place}") == [
        f"From now on I show you times of {city}. It is {time} there now.",
        f"The next appointment stays when it is: Tue 24 Nov, {shown}",
        "To go back: !timezone America/Sao_Paulo",
    ]
    assert await zone_of(room, room.bruno) == zone
    async with room.database.transaction() as tx:
        audited = await tx.execute(
            select(audit_entries.c.actor_id, audit_entries.c.resource_id, audit_entries.c.success).where(
                audit_entries.c.action == "person.set_time_zone"
            )
        )
        assert audited.all() == [(room.bruno.id, str(room.bruno.id), True)]


@pytest.mark.parametrize(
    "place", ["fuso São Paulo", "fuso brasília", "timezone Rio de Janeiro", "fuso America/Sao_Paulo"]
)
async def test_the_zone_that_one_has_stays(room: Conversation, place: str) -> None:
    assert await room.say(room.bruno, f"!{place}") == [
        "I do show you times of Sao Paulo already; it is 09:00 there now."
    ]


async def test_a_place_that_nobody_knows_is_asked_back(room: Conversation) -> None:
    assert await room.say(room.bruno, "!timezone") == [
        "I show you times of Sao Paulo, where it is 09:00 now. !timezone Lisbon changes that."
    ]
    unknown = ["I do not know that place. Name a large city near you: !timezone Lisbon, or !timezone America/Sao_Paulo"]
    for place in ("UTC-3", "-03:00", "xyz", "Etc/GMT+3", "localtime"):
        assert await room.say(room.bruno, f"!timezone {place}") == unknown
    assert await room.say(room.bruno, "!timezone lisbonne") == ["I do not know that place. Did you mean Lisbon?"]
    assert await room.say(room.ana, "!fuso Lisbao") == ["Não conheço esse lugar. Você quis dizer Lisboa?"]
    assert await zone_of(room, room.bruno) == "America/Sao_Paulo"


async def test_who_has_weekly_hours_agrees_by_a_code(room: Conversation) -> None:
    said = await room.say(room.ana, "!fuso Lisboa")
    assert said[:2] == [
        "Seus horários da semana continuam iguais no relógio, que passa a ser o de Lisboa: seg., 23/11, 09:00 lá são "
        "06:00 em São Paulo.",
        "O que está marcado continua quando é; só mudam, para todos, os horários oferecidos.",
    ]
    code = said[2].removeprefix("Está certo? Digite !fuso ").removesuffix(". Até lá nada muda.")
    assert await zone_of(room, room.ana) == "America/Sao_Paulo"
    wrong = f"{(int(code) + 1) % 10_000:04}"
    assert await room.say(room.ana, f"!fuso {wrong}") == [
        "Esse não é o código da minha última pergunta. Nada foi alterado."
    ]
    assert await zone_of(room, room.ana) == "America/Sao_Paulo"
    assert await room.say(room.ana, f"!fuso {code}") == [
        "A partir de agora mostro para você as horas de Lisboa. Agora são 12:00 lá.",
        "Para voltar: !fuso America/Sao_Paulo",
    ]
    assert await zone_of(room, room.ana) == "Europe/Lisbon"
    assert (await room.say(room.ana, f"!fuso {code}"))[0].startswith("Nenhuma alteração está esperando um código.")


async def test_no_answer_is_longer_than_a_phone_shows_well(room: Conversation) -> None:
    """Every example of every word, said by both, in a room with many appointments and exceptions."""
    for day in range(24, 31):
        for hour in (9, 11, 13, 15, 17):
            if day not in (28, 29):
                await room.say(room.bruno, f"!book {day}/11 {hour}:00")
    for day in range(10, 22):
        said = await room.say(room.ana, f"!disponibilidade {day}/12 folga")
        await room.say(room.ana, f"!disponibilidade {said[-1].split()[-5].strip('.')}")
    for person in room.pair.people:
        for name, declared in WORDS.items():
            for example in declared.shown_examples(name, person.language):
                try:
                    lines = await room.say(person, example)
                except Refused:
                    continue
                assert len(lines) <= (20 if name == "settings" else 16), (example, lines)
                assert sum(map(len, lines)) <= 3000


async def test_until_when_the_other_may_agree_to_a_copy_is_told_with_its_zone(room: Conversation) -> None:
    async with room.database.transaction() as tx:
        await pairs.set_room(tx, room.pair.id, "!room:example.org")
    code = (await room.say(room.bruno, "!export"))[1].split("!export ")[1][:4]
    await room.say(room.bruno, f"!export {code}")
    [asked] = await room.told(room.ana)
    assert asked.endswith("concorda, !exportar não recusa, até qui., 26/11, 09:00 (São Paulo).")
