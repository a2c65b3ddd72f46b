"""Whom our own mail server vouches for."""

from email import message_from_string

import pytest

from bridge.proofs import Unproven, proven_author, same_address

OURS = "mx.example.com"


def author(results: str, sender: str = "Ana <ana@mail.example.org>") -> str:
    """Who is believed to have written it, or the reason why nobody is."""
    lines = "".join(f"Authentication-Results: {one}\r\n" for one in results.split(" || ") if one)
    try:
        return proven_author(message_from_string(f"{lines}From: {sender}\r\n\r\nx"), OURS)
    except Unproven as error:
        return error.reason


@pytest.mark.parametrize(
    "results",
    [
        "mx.example.com; dmarc=pass header.from=mail.example.org",
        "MX.example.com 1; dmarc/1=pass header.from=MAIL.example.org",
        'mx.example.com; dmarc=pass (p=reject; "sp=none") reason="all; right" header.from="mail.example.org"',
        "mx.example.com (OpenDMARC (1.4); \\) x); dmarc = pass header.from = mail.example.org",
        "mx.example.com; dkim=fail header.d=evil.example; dkim=pass header.d=mail.example.org header.b=a/b+c",
        "mx.example.com; dkim=pass header.d=example.org",
        "mx.example.com; dkim=pass header.i=@mail.example.org header.d=mail.example.org; spf=fail smtp.mailfrom=x@y.z",
        "other.example; dmarc=fail header.from=x || mx.example.com; dmarc=pass header.from=mail.example.org",
        "mx.example.com;\r\n\tdmarc=pass\r\n\theader.from=mail.example.org",
    ],
)
def test_who_is_vouched_for_is_believed(results: str) -> None:
    assert author(results) == "ana@mail.example.org"


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ("", "no_results"),
        ("mx.example.com.evil.example; dmarc=pass header.from=mail.example.org", "no_results"),
        ('"mx.example.com"; dmarc=pass header.from=mail.example.org', "no_results"),
        ("() mx.example.com; dmarc=pass header.from=mail.example.org", "no_results"),
        ("(mx.example.com); dmarc=pass header.from=mail.example.org", "no_results"),
        ('evil.example; x="; mx.example.com; dmarc=pass header.from=mail.example.org', "no_results"),
        ("mx.example.com; none", "not_aligned"),
        ("mx.example.com; spf=pass smtp.mailfrom=ana@mail.example.org", "not_aligned"),
        ("mx.example.com; dmarc=pass", "not_aligned"),
        ("mx.example.com; dmarc=pass header.from=example.org", "not_aligned"),
        ("mx.example.com; dkim=pass header.d=evil-mail.example.org", "not_aligned"),
        ("mx.example.com; dkim=pass header.d=l.mail.example.org", "not_aligned"),
        ("mx.example.com; dkim=pass header.d=ample.org", "not_aligned"),
        ("mx.example.com; dkim=pass header.d=org", "not_aligned"),
        ("mx.example.com; dkim=pass header.i=@mail.example.org", "not_aligned"),
        ("mx.example.com; (dmarc=pass header.from=mail.example.org)", "not_aligned"),
        ('mx.example.com; x="; dmarc=pass header.from=mail.example.org"', "not_aligned"),
        ("mx.example.com; dkim=pass header.d=evil.example header.d=mail.example.org", "not_aligned"),
        (
            "mx.example.com; dkim=pass header.d=mail.example.org; dmarc=fail header.from=mail.example.org",
            "dmarc_failed",
        ),
        ("mx.example.com; dmarc=none || mx.example.com; dmarc=pass header.from=mail.example.org", "not_aligned"),
        (f"mx.example.com; {'x' * 20_000}; dmarc=pass header.from=mail.example.org", "no_results"),
        (f"mx.example.com; {'x' * 20_000} || mx.example.com; dmarc=pass header.from=mail.example.org", "no_results"),
        ("mx.example.com; dkim=pass header.d=example.org; spf=none smtp.mailfrom=a(b; dmarc=fail", "no_results"),
    ],
)
def test_who_is_not_is_not(results: str, reason: str) -> None:
    assert author(results) == reason


PASS = "mx.example.com; dmarc=pass header.from=mail.example.org"


@pytest.mark.parametrize(
    "sender",
    [
        "ana@mail.example.org",
        "<ana@mail.example.org>",
        '"Silva, Ana \\"A\\" <x@y>" <Ana@Mail.Example.org>',
        "=?utf-8?q?Ana_Concei=C3=A7=C3=A3o?= <ana@mail.example.org>",
    ],
)
def test_one_address_is_read(sender: str) -> None:
    assert author(PASS, sender) == "ana@mail.example.org"


@pytest.mark.parametrize(
    "sender",
    [
        "",
        "ana",
        "ana@mail.example.org, eve@evil.example",
        "ana@mail.example.org <eve@evil.example>",
        "<ana@mail.example.org> <eve@evil.example>",
        "ana@mail.example.org (eve@evil.example)",
        "people: ana@mail.example.org;",
        "<@evil.example:ana@mail.example.org>",
        "ana@mail.example.org\r\nFrom: ana@mail.example.org",
        " " * 900 + "<ana@mail.example.org> x" + " " * 900,
    ],
)
def test_anything_but_one_address_is_nobody_s(sender: str) -> None:
    assert author(PASS, sender) == "from_not_one"


def test_addresses_are_compared_as_mail_means_them() -> None:
    written = "são.example".encode("idna").decode()
    assert same_address("ana@São.example", f"ANA@{written.upper()}")
    assert not same_address("", "")
    assert not same_address("ana@example.org", "ana+x@example.org")
