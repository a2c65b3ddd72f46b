"""A new person comes in, and each way back is walked: on a real homeserver, through the pages as a browser would."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from html import unescape

import aiohttp
from nio import WhoamiError
from sqlalchemy import select, update

from supervision import accounts, invitations, people, seals, sign_ins
from supervision.audit import SYSTEM
from supervision.models import audit_entries
from supervision.models import homeserver_tasks as tasks_table
from supervision.models import invitations as invitations_table
from supervision.models import notifications as notifications_table
from supervision.models import people as people_table
from supervision.people import Person
from tests.support.human import Human
from tests.support.practice import PASSWORD, Practice
from tests.support.sample import acts
from tests.web.conftest import Browser
from web import homeserver

OTHER_PASSWORD = "a different horse of another colour"


def now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def browse(practice: Practice, person: Person | None = None) -> AsyncIterator[Browser]:
    """A browser at the practice's pages; with a person it has just signed in."""
    base = practice.config.web.base_url
    cookies = {}
    if person is not None:
        async with practice.database.transaction() as tx:
            cookies["visavis"] = await sign_ins.open_session(tx, acts(person), person.id, now=now())
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(base, cookie_jar=jar, cookies=cookies) as client:
        yield Browser(client, base)  # type: ignore[arg-type]  # a session asks as the tests' client does


async def invite(practice: Practice, name: str, roles: list[str], localpart: str = "") -> Person:
    """A person with an account that is still to be made."""
    localpart = localpart or f"{name.lower()}.{secrets.token_hex(4)}"
    async with practice.database.transaction() as tx:
        return await invitations.add(
            tx,
            SYSTEM,
            name=name,
            email=f"{secrets.token_hex(6)}@example.org",
            language="en",
            time_zone="Europe/Lisbon",
            roles=roles,
            account=localpart,
            server_name=practice.servers.synapse.server_name,
            now=now(),
        )


def text(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


async def mailed_path(practice: Practice, person: Person) -> str:
    """Where the mail leads that a new person gets, once the homeserver has let them in."""
    [mail] = await practice.mails(person.email, at_least=1)
    found = re.search(r"/welcome/[0-9a-f]{72}", text(mail))
    assert found is not None
    async with asyncio.timeout(60):
        while True:
            async with practice.database.transaction() as tx:
                invitation = await invitations.of(tx, person.id)
            if invitation is not None and invitation.registration is not None:
                return found[0]
            await asyncio.sleep(0.05)


def alerts(browser: Browser) -> list[str]:
    return [unescape(one) for one in re.findall(r'role="alert">(.*?)</p>', browser.page)]


def results(browser: Browser) -> list[str]:
    return [unescape(one) for one in re.findall(r'role="status">(.*?)</p>', browser.page)]


async def audited(practice: Practice, person: Person, like: Iterable[str]) -> list[tuple[str, bool, str | None]]:
    """Action, success and reason of what was done to a person, in order."""
    entry = audit_entries.c
    query = select(entry.action, entry.success, entry.reason).where(entry.resource_id == str(person.id))
    async with practice.database.transaction() as tx:
        rows = await tx.execute(query.order_by(entry.id))
    return [(action, success, reason) for action, success, reason in rows if action.startswith(tuple(like))]


async def written_anywhere(practice: Practice, secret: str) -> list[str]:
    """The columns of what we write about accounts in which that text stands."""
    found = []
    async with practice.database.transaction() as tx:
        for table in (audit_entries, tasks_table, invitations_table, notifications_table):
            for column in table.columns:
                rows = await tx.execute(select(column))
                found += [f"{table.name}.{column.name}" for row in rows if secret in str(row[0])]
    return found


def localpart_of(person: Person) -> str:
    return (person.matrix_id or "").partition(":")[0].removeprefix("@")


async def forget_account(practice: Practice, person: Person) -> None:
    async with practice.database.transaction() as tx:
        await tx.execute(update(people_table).where(people_table.c.id == person.id).values(matrix_id=None))


async def registration_of(practice: Practice, person: Person) -> bytes:
    async with practice.database.transaction() as tx:
        invitation = await invitations.of(tx, person.id)
    assert invitation is not None
    assert invitation.registration is not None
    return invitation.registration


async def test_a_new_person_walks_in_alone(practice: Practice) -> None:
    ana = await practice.add_person("Ana", ["supervisor"], language="pt-BR", time_zone="America/Sao_Paulo")
    bruno = await invite(practice, "Bruno", ["supervisee"])
    path = await mailed_path(practice, bruno)
    async with browse(practice) as browser:
        assert (await browser.get(path)).status == 200
        assert "2</span> Get Element" in browser.page
        await browser.post(f"{path}/account", {"password": "1234567", "again": "1234567"})
        assert alerts(browser) == ["The password needs 8 to 512 characters."]
        fields = {"password": PASSWORD, "again": PASSWORD}
        assert (await browser.post(f"{path}/account", fields)).headers["Location"] == f"{path}?done=registered"
        await browser.follow()
        assert results(browser) == ["Your account is made. The next step is the app."]
        assert "The room appears here once you are paired" in browser.page

        async with practice.database.transaction() as tx:
            bruno = await people.get(tx, bruno.id)
        pair = await practice.add_pair(ana, bruno)
        await browser.get(path)
        assert "The invitation to the room with Ana waits for you in Element." in browser.page
        async with practice.phone(bruno) as phone:
            await phone.join(pair.room_id or "")
            await phone.next_message(practice.bot, lambda message: "!help" in message.body)
            async with asyncio.timeout(60):
                while "You are in the room with Ana. Write !help" not in browser.page:
                    await asyncio.sleep(0.1)
                    await browser.get(path)
        await browser.post(f"{path}/key")
        assert alerts(browser) == ["Tick that you keep the key, or come back when you do."]
        await browser.post(f"{path}/key", {"kept": "on"})
        await browser.follow()
        assert browser.page.count('class="step done"') == 4
    assert await audited(practice, bruno, ("person.", "homeserver.")) == [
        ("person.add", True, None),
        ("person.invite", True, None),
        ("homeserver.open_registration", True, None),
        ("person.register", False, "web.refused.password_length"),
        ("person.register", True, None),
        ("person.keep_key", True, None),
    ]
    assert await written_anywhere(practice, PASSWORD) == []


async def test_a_name_that_somebody_has_is_not_given_away(practice: Practice) -> None:
    taken = await practice.add_person("Clara", ["supervisee"], language="en", time_zone="Europe/Lisbon")
    await forget_account(practice, taken)
    clara = await invite(practice, "Clara", ["supervisee"], localpart_of(taken))
    path = await mailed_path(practice, clara)
    async with browse(practice) as browser:
        await browser.get(path)
        for _ in range(2):  # at the second try it is asked whether the password fits
            await browser.post(f"{path}/account", {"password": OTHER_PASSWORD, "again": OTHER_PASSWORD})
            assert alerts(browser) == [
                "That account name belongs to somebody already. Ask whoever invited you to choose another."
            ]


async def test_a_token_that_is_used_up_is_replaced_and_a_broken_try_is_found_again(practice: Practice) -> None:
    bruno = await invite(practice, "Bruno", ["supervisee"])
    path = await mailed_path(practice, bruno)
    fields = {"password": OTHER_PASSWORD, "again": OTHER_PASSWORD}
    registration = await registration_of(practice, bruno)
    assert practice.machine is not None
    assert practice.machine.administrator is not None
    token = seals.unlock(practice.config.secret.get_secret_value(), registration)
    await practice.machine.administrator.close_registration(token or "")
    async with browse(practice) as browser:
        await browser.get(path)
        await browser.post(f"{path}/account", fields)
        assert alerts(browser) == ["The chat server has not let your account in yet. Try again in a minute."]
        async with asyncio.timeout(60):
            while True:
                if await registration_of(practice, bruno) != registration:
                    break
                await asyncio.sleep(0.05)
        await browser.post(f"{path}/account", fields)
        assert browser.seen[-1].headers["Location"] == f"{path}?done=registered"

        await forget_account(practice, bruno)  # as if we had died between the homeserver's answer and our commit
        async with practice.database.transaction() as tx:
            await tx.execute(
                update(invitations_table)
                .where(invitations_table.c.person_id == bruno.id)
                .values(registered_at=None, registration=registration)
            )
        await browser.get(path)
        await browser.post(f"{path}/account", fields)
        assert browser.seen[-1].headers["Location"] == f"{path}?done=registered"
    async with practice.database.transaction() as tx:
        assert accounts.is_ours(await people.get(tx, bruno.id), practice.servers.synapse.server_name)


async def test_a_lost_password_and_a_lost_phone(practice: Practice) -> None:
    pair = await practice.add_pair()
    bruno, room = pair.supervisee, pair.room_id or ""
    async with practice.phone(bruno) as lost, browse(practice, bruno) as browser:
        await lost.join(room)
        await lost.next_message(practice.bot, lambda message: "!help" in message.body)

        await browser.get("/account/password")
        await browser.post("/account/password", {"password": OTHER_PASSWORD, "again": OTHER_PASSWORD})
        await browser.follow()
        assert results(browser) == ["Your new password works from now on."]
        knows = [
            await homeserver.knows(practice.homeserver, bruno.matrix_id or "", one)
            for one in (PASSWORD, OTHER_PASSWORD)
        ]
        assert knows == [False, True]
        await lost.ask(room, "!help", practice.bot)  # its devices stay

        await browser.get("/account/phone")
        await browser.post("/account/phone")
        await browser.follow()
        assert results(browser) == ["All devices are signed out."]
        assert isinstance(await lost.client.whoami(), WhoamiError)

        folder = practice.state / secrets.token_hex(6)
        folder.mkdir()
        async with Human.log_in(practice.homeserver, bruno.matrix_id or "", OTHER_PASSWORD, store=folder) as found:
            await found.join(room)
            async with asyncio.timeout(60):
                while "/identity/confirm" not in browser.page:
                    await asyncio.sleep(0.1)
                    await browser.get("/account/phone")
            await browser.post("/identity/confirm", browser.fields("/identity/confirm"))
            await found.ask(room, "!slots", practice.bot, lambda message: message.body.startswith("Free with Ana"))

    told = [str(mail["Subject"]) for mail in await practice.mails(bruno.email, at_least=4)]
    assert [one for one in told if "chat account" in one] == [
        "Your chat account's password was changed",
        "Your devices were signed out of your chat account",
        "Your chat account has a new identity",
    ]
    assert await audited(practice, bruno, ("account.", "homeserver.")) == [
        ("account.reset_password", True, None),
        ("homeserver.reset_password", True, None),
        ("account.set_password", True, None),
        ("account.sign_out", True, None),
        ("homeserver.sign_out", True, None),
    ]
    assert await written_anywhere(practice, OTHER_PASSWORD) == []


async def test_who_is_disabled_is_out_everywhere(practice: Practice) -> None:
    pair = await practice.add_pair()
    bruno = pair.supervisee
    rita = await practice.add_person("Rita", ["admin"], language="en", time_zone="Europe/Lisbon")
    async with browse(practice, bruno) as his, browse(practice, rita) as hers:
        assert (await his.get("/account")).status == 200
        await hers.get(f"/admin/people/{bruno.id}")
        await hers.post(f"/admin/people/{bruno.id}/disable", {"deactivate": "on"})
        await hers.follow()
        assert results(hers) == ["The person is disabled."]
        assert (await his.get("/account")).headers["Location"] == "/sign-in"
    # A password tried while the homeserver takes the account away is refused in words of its own, so wait for the end.
    done = ("homeserver.deactivate", True, None)
    async with asyncio.timeout(60):
        while True:
            if done in await audited(practice, bruno, ("homeserver.",)):
                break
            await asyncio.sleep(0.05)
    assert not await homeserver.knows(practice.homeserver, bruno.matrix_id or "", PASSWORD)


async def test_without_the_administrator_s_token_it_is_said_in_one_sentence(practice: Practice) -> None:
    await practice.stop_bot()
    matrix = practice.config.matrix.model_copy(update={"admin_token": None})
    practice.config = practice.config.model_copy(update={"matrix": matrix})
    await practice.start_bot()
    bruno = await practice.add_person("Bruno", ["supervisee"], language="en", time_zone="Europe/Lisbon")
    async with browse(practice, bruno) as browser:
        await browser.get("/account/password")
        await browser.post("/account/password", {"password": OTHER_PASSWORD, "again": OTHER_PASSWORD})
        assert alerts(browser) == [
            "Visavis lacks the permission of the chat server's administrator; ask whoever runs it. Nothing was changed."
        ]
    assert await homeserver.knows(practice.homeserver, bruno.matrix_id or "", PASSWORD)
    assert await audited(practice, bruno, ("account.", "homeserver.")) == [
        ("account.reset_password", True, None),
        ("homeserver.reset_password", False, "no_admin_token"),
        ("account.set_password", False, "refused.no_admin_token"),
    ]


async def test_another_address_is_proved_by_its_own_mail_and_the_old_one_is_told(practice: Practice) -> None:
    bruno = await practice.add_person("Bruno", ["supervisee"], language="en", time_zone="Europe/Lisbon")
    address = f"{secrets.token_hex(6)}@elsewhere.example"
    async with browse(practice, bruno) as browser:
        await browser.get("/account")
        await browser.post("/account/address", {"email": address})
        await browser.follow()
        [mail] = await practice.mails(address, at_least=1)
        found = re.search(r"\b\d{4} \d{4}\b", text(mail))
        assert found is not None
        await browser.post("/account/address/code", {"code": found[0]})
        await browser.follow()
        assert results(browser) == ["Your messages go to the new address now."]
    [warning] = await practice.mails(bruno.email, at_least=1)
    assert str(warning["Subject"]) == "Your messages go to another address now"
    assert address not in text(warning)
    query = select(notifications_table.c.details).where(notifications_table.c.kind.like("address.%"))
    async with asyncio.timeout(60):
        while True:
            async with practice.database.transaction() as tx:
                if not any("address" in details for details in await tx.scalars(query)):
                    return
            await asyncio.sleep(0.05)
