"""What a server's answers mean for a mail, and how connections are kept."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bridge import smtp
from bridge.smtp import AddressRefused, Connections, Envelope, Unreachable
from supervision.config import MailConfig
from supervision.errors import DeliveryFailed, Permanent, Transient
from tests.bridge.servers import DROP, KEEP_AND_DROP, STALL, MoodyServer, certificate, free_port, moody_server

MAIL = Envelope("visavis@example.org", "ana@example.org", b"Subject: a\r\n\r\n.dot\r\n")


def connections(port: int, **more: Any) -> Connections:
    values = {"port": port, "security": "none", "sender": MAIL.sender, "timeout_seconds": 5} | more
    return Connections(MailConfig.model_validate(values))


@pytest.fixture
async def server() -> AsyncIterator[MoodyServer]:
    async with moody_server() as server:
        yield server


@pytest.fixture
async def ours(server: MoodyServer) -> AsyncIterator[Connections]:
    ours = connections(server.port)
    yield ours
    await ours.close()


async def failure(ours: Connections, mail: Envelope = MAIL) -> tuple[type[DeliveryFailed], str]:
    with pytest.raises(DeliveryFailed) as failed:
        await ours.send(mail)
    return type(failed.value), failed.value.code


async def test_a_mail_arrives_as_it_was_written(server: MoodyServer, ours: Connections) -> None:
    await ours.send(MAIL)
    (kept,) = server.kept
    assert (kept.mail_from, kept.rcpt_tos, kept.original_content) == (MAIL.sender, [MAIL.recipient], MAIL.content)


async def test_a_connection_serves_many_mails(server: MoodyServer, ours: Connections) -> None:
    for _ in range(3):
        await ours.send(MAIL)
    assert (len(server.kept), len(server.connections)) == (3, 1)


async def test_mails_at_once_have_a_connection_each(server: MoodyServer, ours: Connections) -> None:
    await asyncio.gather(*(ours.send(MAIL) for _ in range(3)))
    assert (len(server.kept), len(server.connections)) == (3, 3)


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize(
    ("reply", "kind", "code"),
    [
        ("450 4.2.0 busy", Transient, "smtp_450_4.2.0"),
        ("451 later", Transient, "smtp_451"),
        ("452 4.3.1 full", Transient, "smtp_452_4.3.1"),
        ("550 5.7.1 not you", Permanent, "smtp_550_5.7.1"),
        ("554 no", Permanent, "smtp_554"),
    ],
)
async def test_a_refusal_is_transient_or_permanent_and_the_connection_goes_on(
    server: MoodyServer, ours: Connections, verb: str, reply: str, kind: type[DeliveryFailed], code: str
) -> None:
    server.answer(verb, reply)
    assert await failure(ours) == (kind, code)
    await ours.send(MAIL)
    assert (len(server.kept), len(server.connections)) == (1, 1)


@pytest.mark.parametrize(("verb", "kind"), [("RCPT", AddressRefused), ("DATA", Permanent)])
async def test_a_code_of_the_address_speaks_of_it_where_the_address_was_given(
    server: MoodyServer, ours: Connections, verb: str, kind: type[DeliveryFailed]
) -> None:
    server.answer(verb, "550 5.1.1 nobody")
    assert await failure(ours) == (kind, "smtp_550_5.1.1")


@pytest.mark.parametrize(("verb", "kept"), [("MAIL", 0), ("RCPT", 0), ("DATA", 0), ("DATA", 1)])
async def test_a_connection_that_breaks_is_transient(
    server: MoodyServer, ours: Connections, verb: str, kept: int
) -> None:
    server.answer(verb, KEEP_AND_DROP if kept else DROP)
    assert await failure(ours) == (Unreachable if verb == "MAIL" else Transient, "smtp_connection_lost")
    assert len(server.kept) == kept
    await ours.send(MAIL)
    assert len(server.kept) == kept + 1


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_a_server_that_says_nothing_is_transient(server: MoodyServer, verb: str) -> None:
    ours = connections(server.port, timeout_seconds=0.3, data_timeout_seconds=0.3)
    server.answer(verb, STALL)
    assert await failure(ours) == (Unreachable if verb == "MAIL" else Transient, "smtp_timeout")
    await ours.send(MAIL)
    await ours.close()


async def test_a_server_may_take_its_time_over_a_mail_that_it_has(server: MoodyServer) -> None:
    """Such as one that scans it before it answers (RFC 5321, 4.5.3.2.6)."""
    ours = connections(server.port, timeout_seconds=0.2, data_timeout_seconds=5)
    server.hold = asyncio.Event()
    asyncio.get_running_loop().call_later(1.0, server.hold.set)
    await ours.send(MAIL)
    assert len(server.kept) == 1
    await ours.close()


async def test_a_connection_closed_while_idle_is_replaced(server: MoodyServer, ours: Connections) -> None:
    await ours.send(MAIL)
    server.hang_up()
    await ours.send(MAIL)
    await asyncio.sleep(0.05)
    server.hang_up()
    await asyncio.sleep(0.05)
    await ours.send(MAIL)
    assert (len(server.kept), len(server.connections)) == (3, 3)


@pytest.mark.parametrize("reply", [DROP, "421 4.4.2 idle for too long"])
async def test_a_kept_connection_that_is_used_up_is_replaced(
    server: MoodyServer, ours: Connections, reply: str
) -> None:
    await ours.send(MAIL)
    server.answer("MAIL", reply)
    await ours.send(MAIL)
    assert (len(server.kept), len(server.connections)) == (2, 2)


async def test_a_fresh_connection_that_breaks_is_not_tried_again_at_once(
    server: MoodyServer, ours: Connections
) -> None:
    server.answer("MAIL", "421 4.3.2 closing down")
    assert await failure(ours) == (Unreachable, "smtp_421_4.3.2")
    assert len(server.connections) == 1


@pytest.mark.parametrize(("verb", "kind"), [("MAIL", Unreachable), ("RCPT", Transient), ("DATA", Transient)])
async def test_a_login_that_is_wanted_after_all_is_no_fault_of_the_mail(
    server: MoodyServer, ours: Connections, verb: str, kind: type[DeliveryFailed]
) -> None:
    server.answer(verb, "530 5.7.0 sign in first")
    assert await failure(ours) == (kind, "smtp_530_5.7.0")


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [
        ("450 4.2.0 <ana@example.org>: Recipient address rejected: Greylisted, see the postmaster's page", 310.0),
        ("451 4.7.1 Greylisting in action, please come back later", 310.0),
        ("451 4.7.1 Try again later", 310.0),
        ("450 graylisted", 310.0),
        ("450 4.2.0 mailbox busy", None),
        ("452 4.7.1 no room", None),
        ("451 4.7.10 no such thing", None),
    ],
)
async def test_greylisting_wants_minutes(
    server: MoodyServer, ours: Connections, reply: str, seconds: float | None
) -> None:
    server.answer("RCPT", reply)
    with pytest.raises(Transient) as failed:
        await ours.send(MAIL)
    assert failed.value.retry_after == seconds


async def test_a_kept_connection_that_says_nothing_is_replaced(server: MoodyServer) -> None:
    """Such as one that a firewall has forgotten."""
    ours = connections(server.port, timeout_seconds=0.3)
    await ours.send(MAIL)
    server.answer("MAIL", STALL)
    await ours.send(MAIL)
    assert (len(server.kept), len(server.connections)) == (2, 2)
    await ours.close()


async def test_open_connections_are_counted(server: MoodyServer, ours: Connections) -> None:
    assert ours.opened == 0
    await asyncio.gather(ours.send(MAIL), ours.send(MAIL))
    assert ours.opened == 2
    server.answer("RCPT", DROP)
    await failure(ours)
    assert ours.opened == 1


async def test_idle_connections_are_closed_in_time(
    server: MoodyServer, ours: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ours.send(MAIL)
    await ours.close_idle()
    await ours.send(MAIL)
    assert len(server.connections) == 1
    monkeypatch.setattr(smtp, "IDLE_SECONDS", 0.0)
    await ours.close_idle()
    await ours.send(MAIL)
    assert len(server.connections) == 2


async def test_no_server_is_transient() -> None:
    with free_port() as port:
        assert await failure(connections(port)) == (Unreachable, "smtp_connect")


@pytest.mark.parametrize(
    ("address", "expected"),
    [("ana@example.org", "ana@example.org"), ("ana@münchen.example", "ana@xn--mnchen-3ya.example")],
)
def test_a_domain_beyond_ascii_is_written_as_dns_wants_it(address: str, expected: str) -> None:
    assert smtp.to_ascii(address) == expected


def test_a_domain_that_cannot_be_is_permanent() -> None:
    with pytest.raises(Permanent):
        smtp.to_ascii(f"ana@{'ü' * 70}.example")


@pytest.mark.parametrize(
    "recipient", ["ana@example.org>\r\nDATA", "ana\n@example.org", "a b@example.org", "josé@example.org", ""]
)
async def test_an_address_cannot_become_a_command(server: MoodyServer, ours: Connections, recipient: str) -> None:
    assert await failure(ours, Envelope(MAIL.sender, recipient, MAIL.content)) == (Permanent, "address_unusable")
    assert server.kept == []


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize(
    ("name", "trusted", "outcome"),
    [("127.0.0.1", True, None), ("127.0.0.1", False, "smtp_tls"), ("mail.example.org", True, "smtp_tls")],
)
async def test_a_certificate_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, security: str, name: str, trusted: bool, outcome: str | None
) -> None:
    context, authority = certificate(tmp_path, name)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority) if trusted else str(tmp_path / "none.pem"))
    encrypted = moody_server(tls=context) if security == "tls" else moody_server(starttls=context)
    async with encrypted as server:
        ours = connections(server.port, security=security)
        if outcome is None:
            await ours.send(MAIL)
            assert len(server.kept) == 1
        else:
            assert await failure(ours) == (Unreachable, outcome)
            assert server.kept == []
        await ours.close()


async def test_starttls_is_insisted_on(server: MoodyServer) -> None:
    """A server, or somebody between, that hides STARTTLS gets no mail in clear."""
    assert await failure(connections(server.port, security="starttls")) == (Unreachable, "smtp_extension_missing")
    assert server.kept == []


@pytest.mark.parametrize("password", ["right", "wrong"])
async def test_a_login_that_is_refused_is_the_operator_s_to_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    context, authority = certificate(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    async with moody_server(starttls=context, password="right") as server:
        ours = connections(server.port, security="starttls", username="visavis", password=password)
        if password == "right":
            await ours.send(MAIL)
            assert len(server.kept) == 1
        else:
            assert await failure(ours) == (Unreachable, "smtp_sign_in_535")
        await ours.close()
