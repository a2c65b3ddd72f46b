"""The configuration: a YAML file, the environment over it, `*_file` secrets. All problems are reported at once.

`VISAVIS_MAIL__HOST=…` sets `mail.host`. Any secret `x` can be given as `x_file`, the path of a file that holds it.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr, ValidationError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from supervision import people
from supervision.checks import MOST_PLACE
from supervision.errors import ConfigInvalid, NotUnderstood, Problem
from supervision.hours import ROOM
from supervision.models import Consent, FileKind

ENVIRONMENT_PREFIX = "VISAVIS_"
UNREADABLE = "unreadable" * 4  # stands in for a secret whose file was complained of already
HOST = re.compile(r"[\w.-]+")
TOKEN = re.compile(r"[!-~]+( [!-~]+)*")
SECRETS = frozenset({"secret", "url", "owner_url", "as_token", "password", "admin_token"})


def database_url(value: SecretStr) -> SecretStr:
    try:
        url = make_url(value.get_secret_value())
    except (ArgumentError, ValueError) as error:  # the latter for a port that is no number, and quotes it
        raise ValueError("is no database URL") from error
    if url.drivername not in ("postgresql", "postgresql+asyncpg"):
        raise ValueError("must begin with postgresql://; PostgreSQL is the only database")
    if not url.database:
        raise ValueError("names no database")
    return SecretStr(url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False))


def http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and parts.username is None
    except ValueError:  # a port that is none, brackets that are not closed
        right = False
    if not right or parts.query or parts.fragment:
        raise ValueError("must be an http:// or https:// address")
    return value.rstrip("/")


def without_path(value: str) -> str:
    if urlsplit(value).path:
        raise ValueError("must have no path")
    return value


def host_name(value: str) -> str:
    try:
        ip_address(value)
    except ValueError:
        if not HOST.fullmatch(value):
            raise ValueError("is no host name or IP address alone") from None
    return value


def token(value: SecretStr) -> SecretStr:
    """What can stand in a header (RFC 9110, section 5.5): other characters would fail with each request."""
    if not TOKEN.fullmatch(value.get_secret_value()):
        raise ValueError("must be letters, digits and signs on one line")
    return value


def call_template(value: str) -> str:
    try:
        parts = urlsplit(value)
        hostname = parts.hostname
    except ValueError:
        hostname = None
    if hostname is None or parts.scheme != "https" or people.has_controls(value) or " " in value:
        raise ValueError("must be an https:// address")
    if ROOM not in value.removeprefix(f"https://{parts.netloc}"):
        raise ValueError(f"must hold {ROOM}, behind the host")
    return value


def address(value: str) -> str:
    try:
        return people.check_email(value)
    except NotUnderstood as error:
        raise ValueError("is no mail address") from error


def mail_domain(value: str) -> str:
    try:
        people.check_email(f"reply@{value}")
    except NotUnderstood as error:
        raise ValueError("is no mail domain such as mail.example.org") from error
    if not value.isascii() or "." not in value:
        raise ValueError("is no mail domain such as mail.example.org")
    return value.lower()


def display_name(value: str) -> str:
    if people.has_controls(value) or "=?" in value:
        raise ValueError("must be plain text on one line")
    return value


def bot_id(value: str) -> str:
    try:
        return people.check_matrix_id(value)
    except NotUnderstood as error:
        raise ValueError("is no Matrix ID such as @visavis:example.org") from error


DatabaseUrl = Annotated[SecretStr, AfterValidator(database_url)]
CallTemplate = Annotated[str, Field(max_length=MOST_PLACE), AfterValidator(call_template)]
Token = Annotated[SecretStr, AfterValidator(token)]
HttpUrl = Annotated[str, AfterValidator(http_url)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatabaseConfig(Section):
    url: DatabaseUrl
    owner_url: DatabaseUrl | None = None
    pool_size: int = Field(10, ge=2, le=100)


class MatrixConfig(Section):
    homeserver: HttpUrl
    bot: Annotated[str, AfterValidator(bot_id)]
    as_token: Token | None = None
    password: SecretStr | None = Field(None, min_length=1)
    admin_token: Token | None = None
    public_url: HttpUrl | None = None
    store: Path = Path("var/bot")
    unread_minutes: int = Field(30, ge=0, le=10080)
    presence: bool = True

    @property
    def server_name(self) -> str:
        """What the Matrix IDs of our homeserver end in."""
        return self.bot.partition(":")[2]


class MailConfig(Section):
    host: Annotated[str, AfterValidator(host_name)] = "127.0.0.1"
    port: Port = 25
    security: Literal["none", "starttls", "tls"] = "starttls"
    username: str | None = None
    password: SecretStr | None = None
    sender: Annotated[str, AfterValidator(address)]
    sender_name: Annotated[str, AfterValidator(display_name)] = Field("Visavis", min_length=1, max_length=60)
    connections: int = Field(4, ge=1, le=50)
    tries: int = Field(10, ge=1, le=100)
    first_retry_seconds: float = Field(30.0, gt=0, le=3600)
    longest_retry_seconds: float = Field(28800.0, gt=0, le=172800)
    timeout_seconds: float = Field(15.0, gt=0, le=600)
    data_timeout_seconds: float = Field(120.0, gt=0, le=600)


class InboundConfig(Section):
    """The listener that our own mail server hands mail to: calendars' answers, and mails that came back."""

    domain: Annotated[str, AfterValidator(mail_domain)]
    authserv_id: str = Field(min_length=1, max_length=255)
    protocol: Literal["lmtp", "smtp"] = "lmtp"
    listen: str = "127.0.0.1"
    port: Port = 2424
    largest_bytes: int = Field(2_000_000, ge=10_000, le=50_000_000)


class CalendarsConfig(Section):
    """Calendars elsewhere that are read. Networks inside ours are refused, but for those that are named."""

    poll_minutes: int = Field(default=15, ge=1, le=1440)
    private_networks: tuple[IPvAnyNetwork, ...] = ()


class WebConfig(Section):
    base_url: Annotated[HttpUrl, AfterValidator(without_path)]
    listen: str = "127.0.0.1"
    port: Port = 8080
    metrics_listen: str = "127.0.0.1"
    metrics_port: Port = 9108
    trusted_proxies: int = Field(0, ge=0, le=5)


class RoomsConfig(Section):
    """What holds in a room for which nothing else was settled. No days of retention (0) is for ever."""

    attachments: bool = True
    attachment_kinds: tuple[FileKind, ...] = (
        FileKind.IMAGE,
        FileKind.AUDIO,
        FileKind.PDF,
        FileKind.DOCUMENT,
        FileKind.TEXT,
    )
    attachment_megabytes: int = Field(default=25, ge=1, le=1000)
    retention_days: int = Field(default=0, ge=0, le=3650)
    export_consent: Consent = Consent.BOTH


class CallsConfig(Section):
    template: CallTemplate | None = None


class Config(Section):
    secret: SecretStr = Field(min_length=32)
    database: DatabaseConfig
    matrix: MatrixConfig
    mail: MailConfig
    inbound: InboundConfig | None = None
    web: WebConfig
    calendars: CalendarsConfig = CalendarsConfig()
    calls: CallsConfig = CallsConfig()
    rooms: RoomsConfig = RoomsConfig()


@dataclass(frozen=True)
class Given:
    """A value and where it came from."""

    value: Any
    origin: str


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration. Raises ConfigInvalid with every problem, its key and its origin."""
    problems: list[Problem] = []
    given = _flatten(_read_yaml(path), str(path), problems)
    given |= _from_environment(environment)
    given = _read_secret_files(given, problems)
    config: Config | None = None
    try:
        config = Config.model_validate(_nest(given))
    except ValidationError as error:
        found = [_problem(dict(one), given, path) for one in error.errors(include_input=False)]
        problems += [one for one in found if one.key not in given or given[one.key].value != UNREADABLE]
    if config is not None and config.matrix.as_token is None and config.matrix.password is None:
        problems.append(Problem("matrix.as_token", "either this or matrix.password is needed", str(path)))
    if config is not None and (config.mail.username is None) != (config.mail.password is None):
        there, missing = ("username", "password") if config.mail.password is None else ("password", "username")
        problems.append(Problem(f"mail.{there}", f"mail.{missing} is missing", given[f"mail.{there}"].origin))
    if problems or config is None:
        raise ConfigInvalid(problems)
    return config


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigInvalid([Problem("configuration", "the file does not exist", str(path))]) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid([Problem("configuration", "the file cannot be read", str(path))]) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise ConfigInvalid([Problem("configuration", "the file is no valid YAML", where)]) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigInvalid([Problem("configuration", "the file must hold keys and values", str(path))])
    return content


def _flatten(content: dict[Any, Any], origin: str, problems: list[Problem], above: str = "") -> dict[str, Given]:
    flat: dict[str, Given] = {}
    for name, value in content.items():
        key = f"{above}{name}"
        if isinstance(value, dict):
            flat |= _flatten(value, origin, problems, f"{key}.")
        elif value is None and not above and name in Config.model_fields and name != "secret":
            problems.append(Problem(key, "the section is empty", origin))
        else:
            flat[key] = Given(value, origin)
    return flat


def _from_environment(environment: Mapping[str, str]) -> dict[str, Given]:
    return {
        name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", "."): Given(value, f"environment {name}")
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX)
        and name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")[0].removesuffix("_file") in Config.model_fields
    }


def _read_secret_files(given: dict[str, Given], problems: list[Problem]) -> dict[str, Given]:
    read = dict(given)
    for key, entry in given.items():
        secret = key.removesuffix("_file")
        if secret == key or secret.rsplit(".", 1)[-1] not in SECRETS:
            continue
        del read[key]
        if secret in given:
            problems.append(Problem(key, f"{secret} is given too; keep one of them", entry.origin))
            continue
        try:
            read[secret] = Given(Path(str(entry.value)).read_text(encoding="utf-8").strip(), entry.origin)
        except (OSError, UnicodeDecodeError):
            problems.append(Problem(key, "the file it names cannot be read", entry.origin))
            read[secret] = Given(UNREADABLE, entry.origin)
    return read


def _nest(given: Mapping[str, Given]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, entry in given.items():
        *sections, name = key.split(".")
        place = nested
        for section in sections:
            inner = place.setdefault(section, {})
            place = inner if isinstance(inner, dict) else {}
        place[name] = entry.value
    return nested


def _problem(found: dict[str, Any], given: Mapping[str, Given], path: Path) -> Problem:
    key = ".".join(str(part) for part in found["loc"])
    entry = given.get(key)
    if found["type"] == "too_short":  # pydantic's words for a secret speak of "items after validation"
        message = f"must have at least {found['ctx']['min_length']} characters"
        return Problem(key, message, entry.origin if entry else str(path))
    message = {"missing": "is missing", "extra_forbidden": "is not a known key"}.get(
        found["type"], str(found["msg"]).removeprefix("Value error, ")
    )
    return Problem(key, message, entry.origin if entry else str(path))
