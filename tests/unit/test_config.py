"""The configuration: every problem at once, with its key and where the value came from; nothing secret shown."""

from pathlib import Path

import pytest

from supervision.config import load
from supervision.errors import ConfigInvalid

RIGHT = """
secret: 0123456789012345678901234567890123456789
database:
  url: postgresql://visavis_app:pass-phrase@localhost/visavis
matrix:
  homeserver: https://matrix.example.org
  bot: "@visavis:example.org"
  as_token: token
mail:
  host: mail.example.org
  sender: visavis@example.org
web:
  base_url: https://visavis.example.org/
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path, environment: dict[str, str] | None = None) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigInvalid) as refusal:
        load(path, environment or {})
    return [(one.key, one.message, one.origin) for one in refusal.value.problems]


def test_a_right_file_is_read(tmp_path: Path) -> None:
    config = load(write(tmp_path, RIGHT), {})
    assert config.web.base_url == "https://visavis.example.org"
    assert config.database.url.get_secret_value() == "postgresql+asyncpg://visavis_app:pass-phrase@localhost/visavis"
    assert config.mail.port == 25


def test_the_environment_goes_over_the_file(tmp_path: Path) -> None:
    config = load(write(tmp_path, RIGHT), {"VISAVIS_MAIL__HOST": "other.example.org", "VISAVIS_UNRELATED": "x"})
    assert config.mail.host == "other.example.org"


def test_a_secret_can_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from the file\n")
    text = RIGHT.replace("as_token: token", f"as_token_file: {tmp_path / 'token'}")
    token = load(write(tmp_path, text), {}).matrix.as_token
    assert token is not None
    assert token.get_secret_value() == "from the file"


def test_every_problem_is_told_with_key_and_origin(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        RIGHT.replace("https://matrix.example.org", "matrix")
        .replace("visavis@example.org", '"visavis@example.org\\nBcc: x@example.org"')
        .replace("  as_token: token\n", "  as_token_file: /nowhere/token\n")
        + "  port: 99999\ncolour: teal\n",
    )
    assert problems(path, {"VISAVIS_MAIL__PORT": "often"}) == [
        ("matrix.as_token_file", "the file it names cannot be read", str(path)),
        ("matrix.homeserver", "must be an http:// or https:// address", str(path)),
        ("mail.port", "Input should be a valid integer, unable to parse string as an integer",
         "environment VISAVIS_MAIL__PORT"),
        ("mail.sender", "is no mail address", str(path)),
        ("web.port", "Input should be less than or equal to 65535", str(path)),
        ("colour", "is not a known key", str(path)),
    ]  # fmt: skip


def test_missing_keys_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, "secret: 0123456789012345678901234567890123456789\n")
    assert [key for key, message, _ in problems(path) if message == "is missing"] == [
        "database",
        "matrix",
        "mail",
        "web",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "the file is no valid YAML"),
        ("- a\n- b\n", "the file must hold keys and values"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str, message: str) -> None:
    [(key, said, _)] = problems(write(tmp_path, text))
    assert (key, said) == ("configuration", message)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    assert problems(path) == [("configuration", "the file does not exist", str(path))]


def test_bytes_that_are_no_text_are_said(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert problems(path) == [("configuration", "the file cannot be read", str(path))]


def test_no_secret_is_shown(tmp_path: Path) -> None:
    config = load(write(tmp_path, RIGHT), {})
    assert "0123456789" not in repr(config)
    assert "pass-phrase" not in repr(config)
    with pytest.raises(ConfigInvalid) as refusal:
        load(write(tmp_path, RIGHT.replace("0123456789012345678901234567890123456789", "tooshort")), {})
    assert "tooshort" not in str(refusal.value)


def test_an_unreadable_file_is_one_problem(tmp_path: Path) -> None:
    url = "url: postgresql://visavis_app:pass-phrase@localhost/visavis"
    path = write(tmp_path, RIGHT.replace(url, "url_file: /nowhere/url"))
    assert problems(path) == [("database.url_file", "the file it names cannot be read", str(path))]


def test_a_short_secret_is_told_in_plain_words(tmp_path: Path) -> None:
    path = write(tmp_path, RIGHT.replace("0123456789012345678901234567890123456789", "tooshort"))
    assert problems(path) == [("secret", "must have at least 32 characters", str(path))]


@pytest.mark.parametrize("name", ["Vis\\nBcc: x", "=?UTF-8?Q?=0A?=", "Vis\\u202eavis"])
def test_a_sender_s_name_is_one_plain_line(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, RIGHT.replace("  host: mail", f'  sender_name: "{name}"\n  host: mail'))
    assert problems(path) == [("mail.sender_name", "must be plain text on one line", str(path))]


@pytest.mark.parametrize("address", ["http://localhost:99999", "http://localhost:x", "http://[::1"])
def test_an_address_that_cannot_be_asked_is_refused(tmp_path: Path, address: str) -> None:
    path = write(tmp_path, RIGHT.replace("https://matrix.example.org", f'"{address}"'))
    assert problems(path) == [("matrix.homeserver", "must be an http:// or https:// address", str(path))]


@pytest.mark.parametrize("token", ["", " ", "two\\nlines", "…"])
@pytest.mark.parametrize("key", ["as_token", "admin_token"])
def test_a_token_that_no_request_can_carry_is_refused(tmp_path: Path, key: str, token: str) -> None:
    text = RIGHT.replace("  as_token: token", f'  {key}: "{token}"\n  password: a pass phrase')
    path = write(tmp_path, text)
    assert problems(path) == [(f"matrix.{key}", "must be letters, digits and signs on one line", str(path))]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://visavis_app:pass:phrase@localhost:x/visavis", "is no database URL"),
        ("postgresql://visavis_app:p@ss:phrase@localhost/visavis", "is no database URL"),
        ("postgresql://visavis_app:phrase@localhost", "names no database"),
        ("postgresql://visavis_app:phrase@localhost/", "names no database"),
    ],
)
def test_a_database_url_that_leads_nowhere_is_refused_without_its_password(
    tmp_path: Path, url: str, message: str
) -> None:
    path = write(tmp_path, RIGHT.replace("postgresql://visavis_app:pass-phrase@localhost/visavis", url))
    assert problems(path) == [("database.url", message, str(path))]


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("visavis.example.org/", "visavis.example.org/visavis", ("web.base_url", "must have no path")),
        (
            "https://visavis.example.org/",
            "https://ana:phrase@visavis.example.org/",
            ("web.base_url", "must be an http:// or https:// address"),
        ),
        ("mail.example.org", "smtp://mail.example.org", ("mail.host", "is no host name or IP address alone")),
        ("mail.example.org", "mail.example.org:587", ("mail.host", "is no host name or IP address alone")),
        ("mail.example.org", "''", ("mail.host", "is no host name or IP address alone")),
        ("as_token: token", "password: ''", ("matrix.password", "must have at least 1 characters")),
        ("  sender:", "  username: me\n  sender:", ("mail.username", "mail.password is missing")),
        ("  sender:", "  password: phrase\n  sender:", ("mail.password", "mail.username is missing")),
    ],
)
def test_what_could_not_work_is_refused(tmp_path: Path, before: str, after: str, problem: tuple[str, str]) -> None:
    path = write(tmp_path, RIGHT.replace(before, after))
    assert problems(path) == [(*problem, str(path))]


@pytest.mark.parametrize("host", ["localhost", "mail", "mail-1.example.org", "192.0.2.7", "::1", "smtp_out"])
def test_a_mail_server_is_a_name_or_an_ip_address(tmp_path: Path, host: str) -> None:
    path = write(tmp_path, RIGHT.replace("host: mail.example.org", f'host: "{host}"'))
    assert load(path, {}).mail.host == host
