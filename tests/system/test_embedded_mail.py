"""The embedded mail server, spoken to by a real client."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiosmtplib
import pytest
import pytest_asyncio

from embedded.mailserver import MailServer, start_mail_server
from embedded.processes import EmbeddedFailed

MAIL = "Subject: ol\u00e1\r\n\r\n.one dot, a \u2705\r\nlast line\r\n".encode()


@pytest_asyncio.fixture
async def mail_server(tmp_path: Path) -> AsyncIterator[MailServer]:
    server = await start_mail_server(tmp_path / "mail")
    yield server
    await server.stop()


async def send(server: MailServer, sender: str, recipients: list[str], content: bytes = MAIL) -> None:
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=server.port, local_hostname="here") as client:
        await client.sendmail(sender, recipients, content)


def kept(server: MailServer) -> list[bytes]:
    return [path.read_bytes() for path in sorted((server.maildir / "new").iterdir())]


async def test_mail_is_kept_byte_for_byte_below_its_envelope(mail_server: MailServer) -> None:
    await send(mail_server, "bounce+1@a.example", ["ana@b.example", "bruno@b.example"])
    head = b"Return-Path: <bounce+1@a.example>\r\nDelivered-To: ana@b.example\r\nDelivered-To: bruno@b.example\r\n"
    assert kept(mail_server) == [head + MAIL]
    assert list((mail_server.maildir / "tmp").iterdir()) == []


async def test_mails_side_by_side_are_all_kept(mail_server: MailServer) -> None:
    contents = [f"Subject: {number}\r\n\r\nbody\r\n".encode() for number in range(50)]
    await asyncio.gather(*(send(mail_server, "a@a.example", ["b@b.example"], content) for content in contents))
    head = b"Return-Path: <a@a.example>\r\nDelivered-To: b@b.example\r\n"
    assert sorted(kept(mail_server)) == sorted(head + content for content in contents)


async def test_a_mail_that_cannot_be_kept_is_not_accepted(mail_server: MailServer) -> None:
    new = mail_server.maildir / "new"
    new.rmdir()
    with pytest.raises(aiosmtplib.SMTPDataError) as refused:
        await send(mail_server, "a@a.example", ["b@b.example"])
    assert refused.value.code == 452
    new.mkdir()
    await send(mail_server, "a@a.example", ["b@b.example"])
    assert len(kept(mail_server)) == 1


async def test_a_second_start_keeps_port_and_mails(tmp_path: Path) -> None:
    first = await start_mail_server(tmp_path)
    await send(first, "a@a.example", ["b@b.example"])
    await first.stop()
    second = await start_mail_server(tmp_path)
    await second.stop()
    assert second.port == first.port
    assert len(kept(second)) == 1


async def test_stop_does_not_wait_for_an_open_connection(tmp_path: Path) -> None:
    server = await start_mail_server(tmp_path)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert (await reader.readline()).startswith(b"220 ")
    await asyncio.wait_for(server.stop(), 2)
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_a_given_port_is_used_or_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedFailed) as refused:
            await start_mail_server(tmp_path, port=port)
        assert str(refused.value) == f"The port {port} for mail cannot be had: another program uses it."
    server = await start_mail_server(tmp_path, port=port)
    await server.stop()
    assert server.port == port
