"""The command line: what it says, to which stream, with which exit code, and that it never shows a traceback.

Each call is a process of its own. They are forked from one that has loaded the program already, as loading it takes
longer than most commands; `test_the_program_starts_from_anywhere` starts it as people do.
"""

import asyncio
import contextlib
import errno
import multiprocessing
import os
import re
import secrets
import stat
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, get_args

import aiohttp
import asyncpg
import click
import pytest
import yaml
from pydantic import BaseModel
from sqlalchemy import delete

import migrations
import visavis
from bot.requests import Homeserver
from embedded.postgresql import PostgreSQL
from embedded.processes import keep_port
from embedded.synapse import Synapse
from supervision import bots, identities, mailboxes, notifications, pairs
from supervision.config import Config, load
from supervision.db import Database
from supervision.models import Approval, Channel, Fault, State
from supervision.models import notifications as outbox
from supervision.notifications import MATRIX_BACKOFF, Notice
from tests.support.homeserver import PASSWORD, make_account
from tests.support.proxy import Proxy

ROOT = Path(visavis.__file__).resolve().parent
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])  # and with it the program
METRICS = {
    "visavis_calendar_reads_total",
    "visavis_commands_total",
    "visavis_database_up",
    "visavis_files_total",
    "visavis_http_request_duration_seconds",
    "visavis_inbound_mails_total",
    "visavis_mail_delay_seconds",
    "visavis_mail_failures_total",
    "visavis_mail_processing_seconds",
    "visavis_mails_total",
    "visavis_matrix_notices_total",
    "visavis_notifications",
    "visavis_notifications_due",
    "visavis_notifications_oldest_due_seconds",
    "visavis_people_online",
    "visavis_process_cpu_seconds_total",
    "visavis_process_max_fds",
    "visavis_process_open_fds",
    "visavis_process_resident_memory_bytes",
    "visavis_process_start_time_seconds",
    "visavis_process_virtual_memory_bytes",
    "visavis_rooms_checked_total",
    "visavis_unread_messages",
    "visavis_work_delayed",
}
SECRET = "not a secret at all, but long enough to be one"


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]


@dataclass(frozen=True)
class Shell:
    """A folder with a configuration, in which the program is called."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()  # packages that are not installed there

    async def call(self, *words: str) -> Said:
        async with self.begin(*words) as (_, said):
            return await said()

    @contextlib.asynccontextmanager
    async def begin(self, *words: str) -> AsyncIterator[tuple[BaseProcess, Callable[[], Awaitable[Said]]]]:
        """A process, and what waits for its end and gives what it said."""
        mark = secrets.token_hex(4)
        out, err = self.folder / f"{mark}.out", self.folder / f"{mark}.err"
        process = PROCESSES.Process(target=start, args=(self, words, out, err))
        process.start()

        async def end() -> Said:
            await asyncio.to_thread(process.join, 30)
            assert process.exitcode is not None, "the program did not end"
            said = Said(process.exitcode, out.read_text(), err.read_text())
            assert "Traceback" not in said.err, said.err
            return said

        try:
            yield process, end
        finally:
            process.kill()
            await asyncio.to_thread(process.join)
            process.close()
            out.unlink(missing_ok=True)
            err.unlink(missing_ok=True)

    async def do(self, *words: str) -> Said:
        """Call it and expect that it succeeds, without a word to stderr."""
        said = await self.call(*words)
        assert (said.code, said.err) == (0, "")
        return said

    async def fail(self, *words: str) -> str:
        """Call it and expect that it fails, with one sentence to stderr; returns the sentence."""
        said = await self.call(*words)
        assert said.code != 0
        assert said.out == ""
        assert said.err.startswith("visavis: ")
        assert said.err.endswith("\n")
        return said.err.removeprefix("visavis: ").removesuffix("\n")

    def write(self, name: str, content: dict[str, Any]) -> None:
        (self.folder / name).write_text(yaml.safe_dump(content))


def start(shell: Shell, words: tuple[str, ...], out: Path, err: Path) -> None:
    """In the new process: become `visavis WORDS…`, run in the shell's folder."""
    os.chdir(shell.folder)
    os.environ.update(shell.environment)
    for name in shell.absent:
        for known in [
            module for module in sys.modules if module.partition(".")[0] in (name, "visavis_demo", "embedded")
        ]:
            del sys.modules[known]
        sys.modules[name] = None  # type: ignore[assignment]  # as the import system notes a module that is not there
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), number)
    sys.argv = ["visavis", *words]
    visavis.main()


def configuration(url: str, owner_url: str | None = None) -> dict[str, Any]:
    owner = {} if owner_url is None else {"owner_url": owner_url}
    return {
        "secret": SECRET,
        "database": {"url": url} | owner,
        "matrix": {"homeserver": "http://127.0.0.1:9", "bot": "@visavis:example.org", "as_token": "none"},
        "mail": {"sender": "visavis@example.org"},
        "web": {"base_url": "https://visavis.example.org"},
    }


def at_home(content: dict[str, Any], synapse: Synapse) -> dict[str, Any]:
    """A configuration whose homeserver is there."""
    bot = f"@visavis:{synapse.server_name}"
    content["matrix"] |= {"homeserver": synapse.base_url, "bot": bot, "as_token": synapse.as_token}
    return content


@pytest.fixture
def shell(postgresql: PostgreSQL, database_name: str, tmp_path: Path) -> Shell:
    """With a configuration for a migrated database."""
    shell = Shell(tmp_path)
    shell.write(
        "config.yaml",
        configuration(
            postgresql.dsn(database_name, "visavis_app"),
            postgresql.dsn(database_name, "visavis_owner"),
        ),
    )
    return shell


@pytest.fixture
async def bare_name(postgresql: PostgreSQL) -> AsyncIterator[str]:
    """A database without tables."""
    name = f"test_{secrets.token_hex(6)}"
    superuser = await asyncpg.connect(postgresql.url("postgres", "postgres"))
    await superuser.execute(f"CREATE DATABASE {name} OWNER visavis_owner")
    yield name
    await superuser.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await superuser.close()


async def add_person(shell: Shell, name: str, role: str, *more: str) -> str:
    email, matrix_id = f"{name.lower()}@example.org", f"@{name.lower()}:example.org"
    words = ("--name", name, "--email", email, "--matrix-id", matrix_id, "--role", role, *more)
    return (await shell.do("person", "add", *words)).out.strip()


async def test_the_program_starts_from_anywhere(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "visavis.py"),
        "--help",
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert re.findall(r"^  (\w+)  ", out.decode(), re.MULTILINE) == sorted(visavis.cli.commands)


def all_commands(group: click.Group, *above: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*above, name)
        if isinstance(command, click.Group):
            yield from all_commands(command, *above, name)


async def test_every_command_explains_itself(tmp_path: Path) -> None:
    known = list(all_commands(visavis.cli))
    assert {("run",), ("person", "add"), ("pair", "archive"), ("notifications", "retry")} <= set(known)
    shell = Shell(tmp_path)
    for words in known:
        said = await shell.do(*words, "--help")
        assert said.out.startswith(f"Usage: visavis {' '.join(words)} ")
        assert "\n\n  " in said.out  # a sentence of its own, below the usage line


async def test_words_that_are_no_command_get_one_sentence(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert await shell.fail("dance") == "No such command 'dance'."
    assert await shell.fail("run", "kitchen") == (
        "Invalid value for '[bot|bridge|web]': 'kitchen' is not one of 'bot', 'bridge', 'web'."
    )
    assert await shell.fail("person", "add") == "Missing option '--name'."
    assert await shell.fail("person", "disable", "7") == "Invalid value for 'PERSON_ID': '7' is not a valid UUID."


async def test_people_are_added_listed_and_disabled(shell: Shell) -> None:
    ana = await add_person(shell, "Ana", "supervisor", "--role", "admin")
    assert str(uuid.UUID(ana)) == ana
    bruno = await add_person(shell, "Bruno", "supervisee", "--language", "en", "--time-zone", "Europe/Lisbon")
    expected = [
        [ana, "Ana", "ana@example.org", "@ana:example.org", "admin,supervisor"],
        [bruno, "Bruno", "bruno@example.org", "@bruno:example.org", "supervisee"],
    ]
    assert (await shell.do("person", "list")).lines == expected
    for _ in range(2):
        assert (await shell.do("person", "disable", bruno)).out == ""
    expected[1][4] = "disabled"
    assert (await shell.do("person", "list")).lines == expected


async def test_what_wants_the_administrator_s_token_says_so_without_one(shell: Shell, database: Database) -> None:
    async def warn(*words: str) -> tuple[str, str]:
        said = await shell.call(*words)
        assert said.code == 0
        lead = "This configuration has no matrix.admin_token: unless the bot's process has one, "
        assert (said.err.startswith(lead), said.err.count("\n")) == (True, 1)
        return said.out.strip(), said.err.removeprefix(lead).strip()

    anew = "set it there, start the bot anew, and run: visavis"
    words = ("--name", "Ana", "--email", "ana@example.org", "--role", "supervisor", "--account", "ana")
    ana, sentence = await warn("person", "add", *words)
    assert sentence == f"the account cannot be made; {anew} person invite {ana}"
    assert await warn("person", "invite", ana) == ("", sentence)
    bruno = await add_person(shell, "Bruno", "supervisee")
    pair = (await shell.do("pair", "add", ana, bruno)).out.strip()
    async with database.transaction() as tx:
        await pairs.set_room(tx, uuid.UUID(pair), "!room:example.org")
    assert (await shell.do("pair", "archive", pair)).out == ""
    sentence = f"the room stays; {anew} pair remove {pair}"
    assert await warn("pair", "remove", pair, "--yes") == ("", sentence)
    sentence = f"the account does not end; {anew} person disable --deactivate {bruno}"
    assert await warn("person", "disable", bruno, "--deactivate") == ("", sentence)
    shell.environment["VISAVIS_MATRIX__ADMIN_TOKEN"] = "x"
    assert (await shell.do("person", "invite", ana)).out == ""


async def test_mail_that_came_back_is_listed_and_resumed(shell: Shell, database: Database) -> None:
    ana = await add_person(shell, "Ana", "supervisor")
    notice = Notice(uuid.UUID(ana), Channel.MAIL, "sign_in")
    at = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    async with database.transaction() as tx:
        await notifications.enqueue(tx, [notice], now=at)
        await mailboxes.stop(tx, notice.id, "5.1.1", now=at)
    [line] = (await shell.do("person", "list")).lines
    assert line[5:] == ["mail stopped 2026-11-23T12:00:00Z 5.1.1"]
    assert (await shell.do("person", "mail", ana)).out == ""
    assert [line[5:] for line in (await shell.do("person", "list")).lines] == [[]]
    assert await shell.fail("person", "mail", str(uuid.uuid4())) == "There is no such person."


async def test_a_corrected_address_gets_what_was_kept_back(shell: Shell, database: Database) -> None:
    ana = await add_person(shell, "Ana", "supervisor")
    await add_person(shell, "Eva", "supervisee")
    notice = Notice(uuid.UUID(ana), Channel.MAIL, "sign_in")
    async with database.transaction() as tx:
        await notifications.enqueue(tx, [notice], now=datetime(2026, 11, 23, 12, 0, tzinfo=UTC))
        await mailboxes.stop(tx, notice.id, "5.1.1", now=datetime(2026, 11, 23, 12, 0, tzinfo=UTC))
    assert await shell.fail("person", "email", ana, "ana") == "That mail address is not valid."
    taken = "That mail address or Matrix account is somebody's already."
    assert await shell.fail("person", "email", ana, "Eva@example.org") == taken
    assert await shell.fail("person", "email", str(uuid.uuid4()), "x@example.org") == "There is no such person."
    assert (await shell.do("person", "email", ana, "ana.ribeiro@example.org")).out == ""
    [line] = [line for line in (await shell.do("person", "list")).lines if line[0] == ana]
    assert (line[2], line[5:]) == ("ana.ribeiro@example.org", [])
    async with database.transaction() as tx:
        pending = await notifications.list_by_state(tx, State.PENDING)
    assert [(row.id, row.kind) for row in pending if row.kind != "welcome"] == [(notice.id, "sign_in")]


async def test_a_person_that_makes_no_sense_is_refused(shell: Shell) -> None:
    await add_person(shell, "Ana", "supervisor")
    good = {"--name": "Eva", "--email": "eva@example.org", "--role": "supervisee"}
    for change, sentence in (
        ({"--email": "eva@example.org\nBcc: all@example.org"}, "That mail address is not valid."),
        ({"--email": "eva"}, "That mail address is not valid."),
        ({"--email": "ANA@example.org"}, "That mail address or Matrix account is somebody's already."),
        ({"--matrix-id": "@ana:example.org"}, "That mail address or Matrix account is somebody's already."),
        (
            {"--time-zone": "Mars/Olympus"},
            "There is no such time zone; use a name such as America/Sao_Paulo.",
        ),
        ({"--matrix-id": "eva"}, "That Matrix account is not valid; it looks like @name:server."),
        ({"--language": "fr"}, "That language is not available. Possible: pt-BR, en."),
        ({"--role": "boss"}, "Possible roles: supervisor, supervisee, admin."),
        ({"--name": "Eva\n"}, "A name has 1 to 100 letters, on one line."),
    ):
        words = [word for pair in (good | change).items() for word in pair]
        assert await shell.fail("person", "add", *words) == sentence
    assert [line[1] for line in (await shell.do("person", "list")).lines] == ["Ana"]


async def test_pairs_are_added_listed_and_archived(shell: Shell) -> None:
    ana = await add_person(shell, "Ana", "supervisor")
    bruno = await add_person(shell, "Bruno", "supervisee")
    pair = (await shell.do("pair", "add", ana, bruno)).out.strip()
    assert (await shell.do("pair", "list")).lines == [[pair, "Ana", "Bruno", "active", "-"]]
    assert await shell.fail("pair", "add", ana, bruno) == "These two people are a pair already."
    assert await shell.fail("pair", "add", ana, ana) == "A pair needs two different people."
    assert await shell.fail("pair", "add", bruno, ana) == (
        "The first person needs the role supervisor and the second the role supervisee."
    )
    nobody = str(uuid.uuid4())
    assert await shell.fail("pair", "add", ana, nobody) == "There is no such person."
    assert await shell.fail("person", "disable", nobody) == "There is no such person."
    assert await shell.fail("pair", "archive", nobody) == "There is no such pair."
    assert (await shell.do("pair", "archive", pair)).out == ""
    assert (await shell.do("pair", "list")).lines == [[pair, "Ana", "Bruno", "archived", "-"]]


async def test_a_pair_whose_room_is_gone_gets_a_new_one(shell: Shell, database: Database) -> None:
    ana = await add_person(shell, "Ana", "supervisor")
    bruno = await add_person(shell, "Bruno", "supervisee")
    pair = (await shell.do("pair", "add", ana, bruno)).out.strip()
    sentence = "The room of this pair is not lost. A new one is made only where the old one cannot be put right."
    assert await shell.fail("pair", "new-room", pair) == sentence
    async with database.transaction() as tx:
        await pairs.set_room(tx, uuid.UUID(pair), "!old:example.org")
        await pairs.set_fault(tx, await pairs.get(tx, uuid.UUID(pair)), Fault.GONE, now=datetime.now(UTC))
    kept = (await shell.do("pair", "new-room", pair)).out.strip()
    assert sorted(line[:5] for line in (await shell.do("pair", "list")).lines) == sorted(
        [[pair, "Ana", "Bruno", "active", "-"], [kept, "Ana", "Bruno", "archived", "!old:example.org"]]
    )
    assert await shell.fail("pair", "new-room", pair) == sentence


async def test_pairs_are_reopened_held_handed_over_and_removed(shell: Shell) -> None:
    ana = await add_person(shell, "Ana", "supervisor")
    bruno = await add_person(shell, "Bruno", "supervisee")
    clara = await add_person(shell, "Clara", "supervisor")
    pair = (await shell.do("pair", "add", ana, bruno)).out.strip()
    assert await shell.fail("pair", "invite", pair, bruno) == "This pair has no room yet."
    assert await shell.fail("pair", "reopen", pair) == "This pair is not archived."
    assert await shell.fail("pair", "remove", pair, "--yes") == "This pair is still active. Archive it first."
    other = (await shell.do("pair", "hand-over", pair, clara)).out.strip()
    assert (await shell.do("pair", "hold", pair)).out == ""
    held, active = (await shell.do("pair", "list")).lines
    assert (held[:5], active) == (
        [pair, "Ana", "Bruno", "archived", "-"],
        [other, "Clara", "Bruno", "active", "-"],
    )
    assert re.fullmatch(r"held since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", held[5])
    assert await shell.fail("pair", "remove", pair, "--yes") == (
        "A legal hold keeps this room. Nothing of it is removed until the hold ends."
    )
    for words in (("release", pair), ("reopen", pair), ("archive", pair), ("remove", pair, "--yes")):
        assert (await shell.do("pair", *words)).out == ""
    assert (await shell.do("pair", "list")).lines[0][5].startswith("removed ")
    assert await shell.fail("pair", "reopen", pair) == "The room of this pair was removed, or is being removed."
    assert (await shell.do("bots")).lines == []


USUAL = [
    "valid from the beginning to the end of time",
    "public holidays none",
    "length 50, grid 60, buffers 0 and 10 minutes",
    "notice 120, to cancel 1440, to move 120 minutes",
    "horizon 60 days, limits none a day, none a week",
    "approval ask, requests open 2880, offers open 240 minutes",
    "online",
]
MORNINGS = ("--hours", "mon-tue 09:00-12:00")


async def shown(shell: Shell, supervisor: str) -> list[str]:
    return (await shell.do("availability", "show", supervisor)).out.splitlines()


async def set_hours(shell: Shell, supervisor: str, *words: str) -> None:
    assert (await shell.do("availability", "set", supervisor, *words)).out == ""


async def test_a_supervisor_s_hours_are_set_and_shown(shell: Shell) -> None:
    ana = await add_person(shell, "Ana", "supervisor")
    bruno = await add_person(shell, "Bruno", "supervisee")
    assert await shell.fail("availability", "show", ana) == "No hours have been set for this supervision yet."
    assert await shell.fail("availability", "set", ana, "--length", "60") == "Missing option '--hours'."
    await set_hours(shell, ana, *MORNINGS, "--hours", "Fri 14:00-18:00")
    hours = ["mon 09:00-12:00", "tue 09:00-12:00", "fri 14:00-18:00"]
    assert await shown(shell, ana) == await shown(shell, "ANA@example.org") == [*hours, *USUAL]
    await set_hours(shell, "ana@example.org", "--length", "60", "--place", "Room 2", "--mode", "in_person")
    expected = [*hours, *USUAL[:2], "length 60, grid 60, buffers 0 and 10 minutes", *USUAL[3:-1], "in_person Room 2"]
    assert await shown(shell, ana) == expected
    for wrong, sentence in (
        (("--hours", "monday 9-12"), "I do not understand “monday 9-12”. This works: mon-fri 09:00-12:00"),
        (("--hours", "mon 25:00-26:00"), "I do not understand “mon 25:00-26:00”. This works: mon-fri 09:00-12:00"),
        (("--hours", "mon 12:00-09:00"), "A range has to end after it begins. Nothing was changed."),
        ((*MORNINGS, "--hours", "mon 11:00-13:00"), "Two ranges of one day overlap. Nothing was changed."),
        (
            (*MORNINGS, "--horizon", "0"),
            "The time that can be booked ahead has to be between 1 day and 366 days. Nothing was changed.",
        ),
        (("--place", "Room 2\nBcc: x"), "A place is plain text on one line. Nothing was changed."),
        (
            ("--country", "XX"),
            "I know no public holidays for “XX”. Possible, among others: AR, BR, DE, ES, GB, PT, US.",
        ),
        (
            ("--valid-from", "2027-02-30"),
            "Invalid value for '--valid-from': '2027-02-30' is no date such as 2026-12-24.",
        ),
        (
            ("--valid-from", "2027-02-02", "--valid-until", "2027-02-01"),
            "The last day lies before the first. Nothing was changed.",
        ),
    ):
        assert await shell.fail("availability", "set", ana, *wrong) == sentence
    assert await shell.fail("availability", "set", bruno, *MORNINGS) == (
        "It is the supervisor who settles that. Nothing was changed."
    )
    for nobody in ("eva@example.org", str(uuid.uuid4()), "Ana"):
        assert await shell.fail("availability", "show", nobody) == "There is no such person."
    assert await shown(shell, ana) == expected


async def test_every_rule_can_be_set_and_taken_back(shell: Shell) -> None:
    ana = await add_person(shell, "Ana", "supervisor")
    words = "--length 90 --grid 30 --buffer-before 5 --buffer-after 15 --notice 30 --horizon 90 --cancel-notice 2880"
    words += " --move-notice 60 --day-limit 4 --week-limit 20 --approval automatic --answer 600 --offer 60"
    words += " --valid-from 2026-12-01 --valid-until 2027-12-20 --country br --subdivision sp --place https://a.example/{room}"
    await set_hours(shell, ana, "--hours", "mon 09:00-12:00", *words.split())
    assert await shown(shell, ana) == [
        "mon 09:00-12:00",
        "valid from 2026-12-01 to 2027-12-20",
        "public holidays BR SP",
        "length 90, grid 30, buffers 5 and 15 minutes",
        "notice 30, to cancel 2880, to move 60 minutes",
        "horizon 90 days, limits 4 a day, 20 a week",
        "approval automatic, requests open 600, offers open 60 minutes",
        "online https://a.example/{room}",
    ]
    words = "--day-limit none --week-limit none --valid-from none --valid-until none --country none"
    await set_hours(shell, ana, *words.split())
    assert [(await shown(shell, ana))[place] for place in (1, 2, 5)] == [
        *USUAL[:2],
        "horizon 90 days, limits none a day, none a week",
    ]


async def test_exceptions_are_added_shown_and_removed(shell: Shell) -> None:
    ana = await add_person(shell, "Ana", "supervisor")
    await set_hours(shell, ana, *MORNINGS)
    except_ = ("availability", "except", "ana@example.org")
    off = (await shell.do(*except_, "--off", "2026-12-24..2027-01-06", "--yearly")).out.strip()
    extra = (await shell.do(*except_, "--extra", "2026-12-05 09:00-12:00")).out.strip()
    part = (await shell.do(*except_, "--off", "2026-12-05 10:00-11:00")).out.strip()
    assert [line.split("\t") for line in await shown(shell, ana) if "\t" in line] == [
        [extra, "extra_hours", "2026-12-05 09:00-12:00", "once"],
        [part, "time_off", "2026-12-05 10:00-11:00", "once"],
        [off, "time_off", "2026-12-24..2027-01-06", "yearly"],
    ]
    works = "This works: 2026-12-24..2027-01-06, or 2026-12-05 09:00-12:00"
    for wrong, sentence in (
        ((), "Give either --off or --extra."),
        (("--off", "2026-12-01", "--extra", "2026-12-05 09:00-12:00"), "Give either --off or --extra."),
        (("--off", "Christmas"), f"I do not understand “Christmas”. {works}"),
        (("--off", "2026-12-24..2026-12-23"), "The last day lies before the first. Nothing was changed."),
        (("--off", "2026-12-24..2027-12-25"), "That is more than 366 days at once. Nothing was changed."),
        (("--off", "1999-12-24"), "A day has to lie in the years 2000 to 2899. Nothing was changed."),
        (
            ("--extra", "2026-12-06"),
            "Times are given as a beginning and an end, and extra hours need them. Nothing was changed.",
        ),
        (("--extra", "2026-12-05 11:00-13:00"), "Two ranges of one day overlap. Nothing was changed."),
    ):
        assert await shell.fail(*except_, *wrong) == sentence
    for identifier in (off, extra, part):
        assert (await shell.do("availability", "remove", ana, identifier)).out == ""
        assert await shell.fail("availability", "remove", ana, identifier) == (
            "There is no such exception. Nothing was changed."
        )
    assert [line for line in await shown(shell, ana) if "\t" in line] == []


async def test_calendars_are_added_listed_and_removed(shell: Shell) -> None:
    ana = await add_person(shell, "Ana", "supervisor")
    bruno = await add_person(shell, "Bruno", "supervisee")
    address = "webcal://calendar.example.org/private-c0ffee/basic.ics"
    added = (await shell.do("calendar", "add", "ana@example.org", address)).out.strip()
    assert (await shell.do("calendar", "list", ana)).out == f"{added}\tcalendar.example.org\t-\t-\n"
    for person, wrong, sentence in (
        (ana, address, "That calendar is on the list already."),
        (ana, "c0ffee", "That is no calendar's address: one begins with https:// or webcal://. Nothing was changed."),
        (ana, "https://[::1]/", "That address lies inside this server's network and is not read. Nothing was changed."),
        (ana, "-", "That is no calendar's address: one begins with https:// or webcal://. Nothing was changed."),
        (bruno, address, "It is the supervisor who settles that. Nothing was changed."),
    ):  # fmt: skip
        assert await shell.fail("calendar", "add", person, wrong) == sentence
    assert await shell.fail("calendar", "remove", bruno, added) == "There is no such calendar. Nothing was changed."
    assert (await shell.do("calendar", "remove", ana, added)).out == ""
    assert (await shell.do("calendar", "list", ana)).out == ""


async def test_a_configured_call_is_the_place_of_new_supervisors(shell: Shell) -> None:
    ana = await add_person(shell, "Ana", "supervisor")
    await set_hours(shell, ana, *MORNINGS)
    calls = Shell(shell.folder, shell.environment | {"VISAVIS_CALLS__TEMPLATE": "https://meet.example.org/{room}"})
    await set_hours(calls, ana, "--length", "60")
    assert (await shown(shell, ana))[-1] == "online"
    carla = await add_person(shell, "Carla", "supervisor")
    await set_hours(calls, carla, *MORNINGS)
    assert (await shown(shell, carla))[-1] == "online https://meet.example.org/{room}"
    for wrong, sentence in (
        ("http://meet.example.org/{room}", "must be an https:// address"),
        ("https:///{room}", "must be an https:// address"),
        ("https://meet.example.org/", "must hold {room}, behind the host"),
        ("https://{room}.example.org/", "must hold {room}, behind the host"),
    ):
        shell.environment["VISAVIS_CALLS__TEMPLATE"] = wrong
        origin = "from environment VISAVIS_CALLS__TEMPLATE"
        assert await shell.fail("availability", "show", ana) == f"calls.template: {sentence} ({origin})"


async def test_a_pair_gets_lengths_and_approval_of_its_own(shell: Shell, database: Database) -> None:
    ana = await add_person(shell, "Ana", "supervisor")
    bruno = await add_person(shell, "Bruno", "supervisee")
    pair = (await shell.do("pair", "add", ana, bruno)).out.strip()

    async def settled() -> tuple[object, object]:
        async with database.transaction() as tx:
            found = await pairs.get(tx, uuid.UUID(pair))
        return found.lengths, found.approval

    for words, expected in (
        (("--lengths", "50,90"), ((50, 90), None)),
        (("--approval", "automatic"), ((50, 90), Approval.AUTOMATIC)),
        ((), ((50, 90), Approval.AUTOMATIC)),
        (("--lengths", "none"), (None, Approval.AUTOMATIC)),
        (("--lengths", "60", "--approval", "none"), ((60,), None)),
    ):
        assert (await shell.do("pair", "set", pair, *words)).out == ""
        assert await settled() == expected
    for wrong, sentence in (
        ("50,50", "Give one to 6 different lengths, in minutes. Nothing was changed."),
        ("4", "The length has to be between 5 minutes and 12 hours. Nothing was changed."),
        ("an hour", "Invalid value for '--lengths': 'an hour' is no list such as 50,90."),
    ):
        assert await shell.fail("pair", "set", pair, "--lengths", wrong) == sentence
    assert await settled() == ((60,), None)
    shown = (await shell.do("pair", "settings", pair)).out.splitlines()
    assert shown[1:4] == [
        "kinds\timage,audio,pdf,document,text\tconfiguration",
        "megabytes\t25\tconfiguration",
        "retention_days\t0\tconfiguration",
    ]
    assert await shell.fail("pair", "settings", pair, "--kinds", "images") == (
        "Invalid value for '--kinds': 'images' is none of image, audio, video, pdf, document, text, archive."
    )
    settled_by = ("--attachments", "no", "--kinds", "pdf,image", "--retention-days", "90", "--expires-on", "2099-12-31")
    changed = (await shell.do("pair", "settings", pair, *settled_by)).out.splitlines()
    assert changed[:2] == ["attachments\tfalse\town", "kinds\timage,pdf\town"]
    assert changed[6] == "expires_on\t2099-12-31\town"
    assert re.fullmatch(r"From \S+Z on, what was written before \S+Z will be removed\.", changed[7])
    assert (await shell.do("pair", "settings", pair, "--attachments", "none")).out.startswith("attachments\ttrue\tconf")
    assert await shell.fail("pair", "settings", pair, "--megabytes", "0") == (
        "A file can have 1 to 1000 MB. Nothing was changed."
    )


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "x"),
            "The database cannot be reached or used: nothing listens at the host and port of its address"
            " (ConnectionRefusedError).",
        ),
        (TimeoutError(), "The database cannot be reached or used: it does not answer (TimeoutError)."),
        (OSError(errno.EHOSTUNREACH, "x"), "The database cannot be reached or used: OSError."),
        (FileNotFoundError(errno.ENOENT, "No such file", "a/b"), "The file a/b cannot be used: No such file."),
        (OSError(errno.ENOSPC, "x"), "The system refused: No space left on device."),
    ],
)
def test_an_error_of_the_system_is_no_database_s(error: OSError, sentence: str) -> None:
    assert visavis.sentence(error) == sentence


async def test_a_port_that_is_taken_is_said() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    with pytest.raises(OSError, match="bind") as taken:
        await asyncio.start_server(lambda *_: None, "127.0.0.1", server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()
    assert visavis.sentence(taken.value) == "A port to listen on cannot be had: Address already in use."


async def test_an_identity_nobody_offered_cannot_be_trusted(shell: Shell) -> None:
    await add_person(shell, "Ana", "supervisor")
    for words in (("@ana:example.org",), ("@ana:example.org", "ABCD"), ("@nobody:example.org",)):
        assert await shell.fail("person", "trust", *words) == "That account has shown no new identity."


async def test_an_identity_is_trusted_by_its_fingerprint(shell: Shell, database: Database) -> None:
    await add_person(shell, "Ana", "supervisor")
    async with database.transaction() as tx:
        for key in ("A" * 43, "BCDE" * 10 + "FGH"):
            await identities.pin(tx, "@ana:example.org", key, now=datetime(2026, 11, 23, 12, 0, tzinfo=UTC))
    groups = ["BCDE"] * 10 + ["FGH"]
    assert await shell.fail("person", "trust", "@ana:example.org") == (
        f"@ana:example.org shows the fingerprint {' '.join(groups)}. If its owner reads the same in their app, repeat"
        " this command with the fingerprint behind the Matrix ID."
    )
    stale = "This changed while you were looking. Nothing was changed; look again and repeat."
    assert await shell.fail("person", "trust", "@ana:example.org", "A" * 43) == stale
    assert (await shell.do("person", "trust", "@ana:example.org", *groups)).out == ""
    async with database.transaction() as tx:
        assert await identities.pin(tx, "@ana:example.org", "".join(groups), now=datetime.now(UTC)) == "".join(groups)


async def test_parked_notifications_are_listed_and_tried_again(shell: Shell, database: Database) -> None:
    ana = uuid.UUID(await add_person(shell, "Ana", "supervisor"))
    now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    first, second = (Notice(ana, Channel.MAIL, "sign_in", expires_at=now + timedelta(minutes=10)) for _ in range(2))
    async with database.transaction() as tx:
        await tx.execute(delete(outbox))  # the mail that welcomes her
        await notifications.enqueue(tx, [first, second], now=now)
        for claimed in await notifications.claim(tx, Channel.MAIL, now=now):
            await notifications.settle_failed(
                tx, claimed, "smtp_550_5.1.1", now=now, backoff=MATRIX_BACKOFF, permanent=True
            )

    def listed(notice: Notice, attempts: str, error: str) -> list[str]:
        return [str(notice.id), "mail", "sign_in", attempts, error, "2026-11-23T12:00:00Z"]

    parked = [listed(second, "1", "smtp_550_5.1.1"), listed(first, "1", "smtp_550_5.1.1")]
    assert (await shell.do("notifications", "list")).lines == parked
    assert (await shell.do("notifications", "list", "--kind", "sign_in", "--channel", "mail")).lines == parked
    assert (await shell.do("notifications", "list", "--kind", "room.unread")).lines == []
    assert (await shell.do("notifications", "retry", "--channel", "matrix")).out == "0\n"
    assert (await shell.do("notifications", "retry", str(first.id))).out == "1\n"
    assert (await shell.do("notifications", "list", "--state", "pending")).lines == [listed(first, "0", "-")]
    assert await shell.fail("notifications", "retry", str(first.id)) == "No parked notification has that ID."
    assert (await shell.do("notifications", "retry")).out == "1\n"
    assert (await shell.do("notifications", "retry")).out == "0\n"
    assert (await shell.do("notifications", "list")).lines == []


async def test_a_database_is_migrated_and_checked(
    postgresql: PostgreSQL, bare_name: str, tmp_path: Path, synapse: Synapse
) -> None:
    app, owner = postgresql.url(bare_name, "visavis_app"), postgresql.url(bare_name, "visavis_owner")
    shell = Shell(tmp_path)
    shell.write("config.yaml", at_home(configuration(app, owner), synapse))
    too_old = "The database needs migrating first: run visavis migrate."
    assert await shell.fail("check") == too_old
    assert await shell.fail("person", "list") == too_old
    assert await shell.fail("run", "web") == too_old
    for _ in range(2):
        assert (await shell.do("migrate")).out == f"The database is at revision {migrations.head()}.\n"
    checked = (await shell.do("check")).out.splitlines()
    assert checked == ["The configuration is right and the database is ready.", visavis.NO_ADMINISTRATOR]

    connection = await asyncpg.connect(owner)
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    too_new = (
        "The database is at revision 9999, which this version of Visavis does not know."
        " Nothing was changed; start the newer version."
    )
    for words in (("check",), ("migrate",), ("pair", "list"), ("run",)):
        assert await shell.fail(*words) == too_new
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == "9999"
    await connection.close()


async def test_the_administrator_s_token_is_tried(
    shell: Shell, postgresql: PostgreSQL, database_name: str, synapse: Synapse
) -> None:
    async def check(homeserver: str, token: str) -> Said:
        content = at_home(configuration(postgresql.dsn(database_name, "visavis_app")), synapse)
        content["matrix"] |= {"homeserver": homeserver, "admin_token": token}
        shell.write("config.yaml", content)
        return await shell.call("check")

    right = "The configuration is right and the database is ready."
    taken = await check(synapse.base_url, synapse.admin_token)
    assert (taken.code, taken.out.splitlines(), taken.err) == (0, [right, visavis.ADMINISTRATOR_TAKEN], "")
    unknown = await check(synapse.base_url, "syt_nobody")
    assert (unknown.code, unknown.out, unknown.err) == (1, "", f"visavis: {visavis.ADMINISTRATOR_REFUSED}\n")
    account = Homeserver(synapse.base_url)
    login = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": await make_account(synapse)},
        "password": PASSWORD,
    }
    usual = await check(synapse.base_url, str((await account.ask("POST", "/login", login))["access_token"]))
    await account.close()
    assert (usual.code, usual.err) == (1, f"visavis: {visavis.ADMINISTRATOR_REFUSED}\n")
    async with Proxy.before(synapse.base_url) as proxy:
        proxy.refuse = lambda _, path: (404, {}) if path.startswith("/_synapse/admin") else None
        hidden = await check(proxy.url, synapse.admin_token)
    assert (hidden.code, hidden.err) == (1, f"visavis: {visavis.ADMINISTRATOR_UNKNOWN}\n")
    away = await check("http://127.0.0.1:9", synapse.admin_token)
    assert (away.code, away.out, away.err) == (1, "", f"visavis: {visavis.HOMESERVER_AWAY}\n")


async def test_the_bot_s_account_is_tried(
    shell: Shell, postgresql: PostgreSQL, database_name: str, synapse: Synapse
) -> None:
    async def refuse(**changes: Any) -> str:
        content = at_home(configuration(postgresql.dsn(database_name, "visavis_app")), synapse)
        content["matrix"] |= changes
        shell.write("config.yaml", content)
        return await shell.fail("check")

    assert await refuse(as_token="of another homeserver") == visavis.BOT_REFUSED
    assert await refuse(homeserver="http://127.0.0.1:9") == visavis.HOMESERVER_AWAY
    assert await refuse(homeserver=f"{synapse.base_url}/elsewhere") == visavis.HOMESERVER_UNKNOWN
    assert await refuse(bot="@visavis:example.com") == visavis.HOMESERVER_OF_ANOTHER_NAME.format(
        ours="example.com", theirs=synapse.server_name
    )
    assert await refuse(homeserver="http://127.0.0.1:9", as_token=None, password="x") == visavis.HOMESERVER_AWAY
    content = at_home(configuration(postgresql.dsn(database_name, "visavis_app")), synapse)
    content["matrix"] |= {"as_token": None, "password": "is not tried: each login leaves a device"}
    shell.write("config.yaml", content)
    assert (await shell.do("check")).out.splitlines()[0] == "The configuration is right and the database is ready."


async def test_of_several_bots_all_want_the_token_or_none(
    shell: Shell, database: Database, postgresql: PostgreSQL, database_name: str, synapse: Synapse
) -> None:
    shell.write("config.yaml", at_home(configuration(postgresql.dsn(database_name, "visavis_app")), synapse))
    now = datetime.now(UTC)
    right = ["The configuration is right and the database is ready.", visavis.NO_ADMINISTRATOR]
    async with database.transaction() as tx:
        await bots.register(tx, f"@visavis:{synapse.server_name}", "key", now=now)
        await bots.register(tx, "@long.ago:example.org", "key", now=now - 2 * bots.SEEN_LATELY)
    assert (await shell.do("check")).out.splitlines() == right
    async with database.transaction() as tx:
        await bots.register(tx, "@other:example.org", "key", now=now)
    assert (await shell.do("check")).out.splitlines() == [*right, visavis.SEVERAL_BOTS]


async def test_a_database_that_cannot_be_reached_or_used(postgresql: PostgreSQL, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    good = postgresql.url("visavis", "visavis_app")
    for url, reason in (
        (
            "postgresql://visavis_app:wrong@127.0.0.1:9/visavis",
            "nothing listens at the host and port of its address (ConnectionRefusedError)",
        ),
        (
            "postgresql://visavis_app:wrong@/visavis?host=/nowhere",
            "no PostgreSQL has its socket in the folder of its address (FileNotFoundError)",
        ),
        (
            "postgresql://visavis_app:wr/ng@nowhere.invalid/visavis",
            "the host of its address is not known; a password's : / ? # @ are written %3A %2F %3F %23 %40 (gaierror)",
        ),
        (
            good.replace(postgresql.passwords["visavis_app"], "wrong"),
            "role or password is wrong (InvalidPasswordError)",
        ),
        (good.replace("/visavis?", "/nowhere?"), "there is no database of that name (InvalidCatalogNameError)"),
    ):
        shell.write("config.yaml", configuration(url))
        for words in (("check",), ("migrate",), ("person", "list"), ("run",)):
            assert await shell.fail(*words) == f"The database cannot be reached or used: {reason}."


async def test_a_role_without_rights_is_told_what_it_lacks(
    postgresql: PostgreSQL, bare_name: str, tmp_path: Path
) -> None:
    app, owner = postgresql.url(bare_name, "visavis_app"), postgresql.url(bare_name, "visavis_owner")
    shell = Shell(tmp_path)
    lacking = (
        "The database cannot be reached or used: the role lacks a right there; visavis migrate wants the owner's role"
        " (database.owner_url) and gives the application's its rights (InsufficientPrivilegeError)."
    )
    shell.write("config.yaml", configuration(app))
    assert await shell.fail("migrate") == lacking
    shell.write("config.yaml", configuration(owner))
    assert (await shell.do("migrate")).out == f"The database is at revision {migrations.head()}.\n"
    shell.write("config.yaml", configuration(app))
    assert await shell.fail("person", "list") == lacking


async def test_a_wrong_configuration_is_told_all_at_once(tmp_path: Path) -> None:
    shell = Shell(tmp_path, {"VISAVIS_WEB__PORT": "99999", "VISAVIS_DATABASE__URL_FILE": str(tmp_path / "missing")})
    wrong = configuration("unused") | {"secret": "short", "colour": "green"}
    del wrong["database"], wrong["matrix"]["bot"]
    wrong["mail"]["sender"] = "visavis"
    shell.write("config.yaml", wrong)
    for words in (("check",), ("migrate",), ("person", "list"), ("run",), ("notifications", "retry")):
        assert (await shell.fail(*words)).splitlines() == [
            "database.url_file: the file it names cannot be read (from environment VISAVIS_DATABASE__URL_FILE)",
            "secret: must have at least 32 characters (from config.yaml)",
            "matrix.bot: is missing (from config.yaml)",
            "mail.sender: is no mail address (from config.yaml)",
            "web.port: Input should be less than or equal to 65535 (from environment VISAVIS_WEB__PORT)",
            "colour: is not a known key (from config.yaml)",
        ]
    assert await shell.fail("--config", "nowhere.yaml", "check") == (
        "configuration: the file does not exist (from nowhere.yaml)"
    )


async def test_it_runs_until_it_is_told_to_stop(shell: Shell, postgresql: PostgreSQL, database_name: str) -> None:
    """Even while the homeserver is away; and a port that it cannot have is one sentence."""
    port = await keep_port(shell.folder / "port", None, "the pages")
    metrics_port = await keep_port(shell.folder / "metrics-port", None, "the metrics")
    content = configuration(postgresql.dsn(database_name, "visavis_app"))
    content["web"] = {"base_url": f"http://localhost:{port}", "port": port, "metrics_port": metrics_port}
    shell.write("config.yaml", content)
    async with shell.begin("run") as (process, said), aiohttp.ClientSession() as http:
        ready = await wait_for(http, f"http://localhost:{port}/health/ready")
        assert ready == '{"status": "ready"}'
        metrics = await wait_for(http, f"http://localhost:{metrics_port}/metrics")
        families = set(re.findall(r"^# TYPE (visavis_\w+) ", metrics, re.MULTILINE))
        assert {name for name in families if not name.endswith("_created")} == METRICS
        taken = await shell.call("run", "web")
        assert (taken.code, taken.out) == (1, "")
        assert re.fullmatch(
            rf"visavis: The web application cannot listen on 127\.0\.0\.1, port {metrics_port}: .+\.",
            taken.err.splitlines()[-1],
        )
        process.terminate()
        assert (await said()).code == 0


async def wait_for(http: aiohttp.ClientSession, url: str) -> str:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(url) as answer:
                    if answer.status == 200:
                        return await answer.text()
            await asyncio.sleep(0.05)


async def test_a_first_configuration_is_written_once(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    said = await shell.do("init")
    assert said.out == (
        "Wrote config.yaml and visavis-registration.yaml. Go through the first, then give the second to Synapse\n"
        "under app_service_config_files, restart it, and run: visavis migrate, then visavis check\n"
    )
    written = files(tmp_path)
    assert set(written) == {"config.yaml", "visavis-registration.yaml"}
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in written] == [0o600, 0o600]

    config = load(tmp_path / "config.yaml", environment={})
    registration = yaml.safe_load(written["visavis-registration.yaml"])
    assert config.matrix.as_token is not None
    tokens = [config.secret.get_secret_value(), registration.pop("as_token"), registration.pop("hs_token")]
    assert tokens[1] == config.matrix.as_token.get_secret_value()
    assert len({token for token in tokens if len(token) == 64}) == 3
    assert registration == {
        "id": "visavis",
        "url": None,
        "sender_localpart": "visavis-service",
        "rate_limited": False,
        "io.element.msc4190": True,
        "namespaces": {"users": [{"exclusive": True, "regex": "@visavis.*"}], "aliases": [], "rooms": []},
    }

    assert await shell.fail("init") == "The file config.yaml is there already; nothing was changed."
    (tmp_path / "config.yaml").unlink()
    assert await shell.fail("init") == "The file visavis-registration.yaml is there already; nothing was changed."
    del written["config.yaml"]
    assert files(tmp_path) == written
    assert await shell.fail("--config", "no/such/folder/config.yaml", "init") == (
        "The file no/such/folder/visavis-registration.yaml cannot be written: No such file or directory."
    )


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


async def test_the_demo_needs_what_a_production_machine_lacks(tmp_path: Path) -> None:
    shell = Shell(tmp_path, absent=("aiosmtpd",))
    assert await shell.fail("demo") == "The demo's servers are not installed; `make demo` installs them."


def test_the_example_as_it_stands_is_refused(tmp_path: Path) -> None:
    """Its secret is known to everybody."""
    with pytest.raises(Exception, match=r"^secret: .* at least 32 "):
        load(ROOT / "config.example.yaml", environment={})


def test_the_example_documents_every_key_and_no_other() -> None:
    found: list[str] = []
    section = ""
    for line in (ROOT / "config.example.yaml").read_text().splitlines():
        key = re.fullmatch(r"(  )?(?:# )?([a-z_]+):(?: .*)?", line)
        if key is None:
            continue
        if line.endswith(":"):
            section = key[2] + "."
        else:
            found.append((section if key[1] else "") + key[2])
    assert sorted(found) == sorted(keys_of(Config))


def keys_of(model: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, value in model.model_fields.items():
        kinds = get_args(value.annotation) or (value.annotation,)  # a section that may be left out is `X | None`
        section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if section is not None:
            yield from keys_of(section, f"{above}{name}.")
        else:
            yield above + name
