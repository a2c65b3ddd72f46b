"""The demo's calendars: what they answer is what the bridge takes for proof."""

import socket
from datetime import UTC, datetime, timedelta
from email import message_from_bytes

import pytest

from bridge import mail, proofs, replies, samples
from embedded import answers
from embedded.processes import EmbeddedFailed
from supervision import seals
from supervision.config import InboundConfig
from supervision.models import Attendance
from tests.bridge.conftest import SECRET, make_config

NOW = datetime(2026, 11, 23, 12, 0, 5, tzinfo=UTC)
LATER = NOW + timedelta(minutes=2)
AUTHSERV = "mx.example.org"
CONFIG = make_config(25).model_copy(
    update={"inbound": InboundConfig.model_validate({"domain": "replies.example.org", "authserv_id": AUTHSERV})}
)


def written(kind: str) -> bytes:
    return mail.write(samples.letter(kind, "pt-BR", now=NOW), CONFIG, now=NOW).content


@pytest.mark.parametrize(
    ("word", "attendance"),
    [
        ("accept", Attendance.ACCEPTED),
        ("tentative", Attendance.TENTATIVE),
        ("decline", Attendance.DECLINED),
    ],
)
def test_an_answer_is_proven_and_about_the_entry(word: str, attendance: Attendance) -> None:
    reply = answers.reply(written("appointment.booked"), word, AUTHSERV, now=LATER)
    assert reply is not None
    recipient = samples.letter("appointment.booked", "pt-BR", now=NOW).recipient
    assert (reply.sender, reply.recipient) == (
        recipient.email,
        seals.reply_address(SECRET, recipient.id, "replies.example.org"),
    )
    message = message_from_bytes(reply.content)
    author = proofs.proven_author(message, AUTHSERV)
    assert author == recipient.email
    (response,) = replies.read(message, author)
    appointment = samples.letter("appointment.booked", "pt-BR", now=NOW).notification.appointment_id
    assert (response.entry_id, response.sequence, response.stamp, response.answer) == (
        appointment,
        2,
        LATER,
        attendance,
    )


@pytest.mark.parametrize("kind", ["appointment.cancelled", "appointment.reminder", "sign_in"])
def test_what_invites_to_nothing_has_no_answer(kind: str) -> None:
    assert answers.reply(written(kind), "accept", AUTHSERV, now=LATER) is None


async def test_an_answer_that_nobody_takes_is_a_failure() -> None:
    reply = answers.reply(written("series.booked"), "accept", AUTHSERV, now=LATER)
    assert reply is not None
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(EmbeddedFailed):
            await answers.hand_over(reply, "127.0.0.1", bound.getsockname()[1])
