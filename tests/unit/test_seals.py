"""What was sealed is recognised, what was not is not, and no seal serves another purpose."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervision import seals
from supervision.models import Topic

SECRET, OTHER = "a" * 40, "b" * 40
SOMEBODY = uuid.UUID("0b1d9a52-9f5b-4c6a-8f0e-2b6f5d0c7e11")
DOMAIN = "mail.visavis.example"


def test_an_address_says_whose_it_is_however_a_server_wrote_it() -> None:
    address = seals.reply_address(SECRET, SOMEBODY, DOMAIN)
    assert seals.read_reply_address(SECRET, address, DOMAIN) == SOMEBODY
    assert seals.read_reply_address(SECRET, address.upper(), DOMAIN) == SOMEBODY
    assert len(address.partition("@")[0]) <= 64


def test_an_address_serves_one_purpose_one_secret_and_one_domain() -> None:
    reply, returned = seals.reply_address(SECRET, SOMEBODY, DOMAIN), seals.return_address(SECRET, SOMEBODY, DOMAIN)
    assert seals.read_return_address(SECRET, returned, DOMAIN) == SOMEBODY
    assert seals.read_return_address(SECRET, reply, DOMAIN) is None
    assert seals.read_reply_address(SECRET, returned, DOMAIN) is None
    assert seals.read_reply_address(SECRET, returned.replace("bounce+", "reply+"), DOMAIN) is None
    assert seals.read_reply_address(OTHER, reply, DOMAIN) is None
    assert seals.read_reply_address(SECRET, reply, "visavis.example") is None


@given(st.text(max_size=90))
def test_any_other_address_is_nobodys(local: str) -> None:
    assert seals.read_reply_address(SECRET, f"{local}@{DOMAIN}", DOMAIN) is None
    assert seals.read_return_address(SECRET, local, DOMAIN) is None
    assert seals.read_unsubscribe_token(SECRET, local) is None


@pytest.mark.parametrize("topic", Topic)
def test_a_link_says_who_wants_no_more_mail_about_what(topic: Topic) -> None:
    token = seals.unsubscribe_token(SECRET, SOMEBODY, topic)
    assert seals.read_unsubscribe_token(SECRET, token) == (SOMEBODY, topic)
    assert seals.read_unsubscribe_token(OTHER, token) is None
    assert seals.read_unsubscribe_token(SECRET, token[:-1] + ("0" if token[-1] != "0" else "1")) is None


def test_a_feed_ends_with_its_nonce() -> None:
    nonce, later = uuid.uuid4(), uuid.uuid4()
    token = seals.feed_token(SECRET, SOMEBODY, nonce)
    assert seals.read_feed_token(token) == SOMEBODY
    assert not seals.matches(seals.feed_token(SECRET, SOMEBODY, later), token)


def test_what_is_locked_is_read_with_the_same_secret_alone() -> None:
    locked = seals.lock(SECRET, "https://calendar.example/private/ana.ics")
    assert b"ana" not in locked
    assert seals.unlock(SECRET, locked) == "https://calendar.example/private/ana.ics"
    assert seals.unlock(OTHER, locked) is None
    assert seals.unlock(SECRET, b"nonsense") is None
