"""Which passwords are passed on to the homeserver."""

import uuid

import pytest

from supervision.errors import NotUnderstood
from supervision.models import Role
from supervision.people import Person
from web import passwords

ANA = Person(
    uuid.UUID(int=1), "Ana Ribeiro", "ana.r@example.org", None, "en", "Europe/Lisbon", frozenset({Role.SUPERVISOR})
)


@pytest.mark.parametrize(
    "password", ["four plain words here", "  keeps its spaces  ", "ação é só çedilha", "x" * 7 + "y"]
)
def test_what_is_long_enough_is_taken_as_it_was_typed(password: str) -> None:
    assert passwords.check(password, password, ANA, "ana") == password


@pytest.mark.parametrize(
    ("password", "again", "key"),
    [
        ("four plain words", "four plain word", "web.refused.passwords_differ"),
        ("1234567", "1234567", "web.refused.password_length"),
        ("", "", "web.refused.password_length"),
        ("x y" * 200, "x y" * 200, "web.refused.password_length"),
        ("aaaaaaaa", "aaaaaaaa", "web.refused.password_guessed"),
        ("12345678", "12345678", "web.refused.password_guessed"),
        ("hgfedcba", "hgfedcba", "web.refused.password_guessed"),
        ("Ribeiro2026!", "Ribeiro2026!", "web.refused.password_guessed"),
        ("visavis-123", "visavis-123", "web.refused.password_guessed"),
        ("ana.r@example.org", "ana.r@example.org", "web.refused.password_guessed"),
        ("19841984", "19841984", "web.refused.password_guessed"),
        ("nothing\0here", "nothing\0here", "web.refused.password_guessed"),
    ],
)
def test_what_is_short_or_easily_guessed_is_refused(password: str, again: str, key: str) -> None:
    with pytest.raises(NotUnderstood) as refused:
        passwords.check(password, again, ANA, "ana")
    assert refused.value.key == key
