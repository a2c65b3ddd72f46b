"""What we hand out and recognise when it comes back: reply and return addresses, links, and locked values.

Each is derived from an ID and the configured secret (HMAC-SHA-256, RFC 2104), every purpose with a key of its own, so
the database holds nothing that lets anybody pretend to have been given one, and any process can make or read them.
Addresses are lower case and know no other characters than letters, digits and `+`, because mail servers on the way
change the rest, and their local part is below the 64 octets of RFC 5321, 4.5.3.1.1.
"""

import base64
import hashlib
import hmac
import uuid

from cryptography.fernet import Fernet, InvalidToken

from supervision.models import Topic

REPLY, RETURN = "reply", "bounce"
ID_CHARACTERS, SEAL_CHARACTERS = 26, 16  # of base32: 128 and 80 bits
LINK_SEAL = 40  # of hex: 160 bits


def reply_address(secret: str, person_id: uuid.UUID, domain: str) -> str:
    """The person's own address at our domain, which their calendar answers to."""
    return f"{REPLY}+{_sealed(secret, REPLY, person_id)}@{domain}"


def read_reply_address(secret: str, address: str, domain: str) -> uuid.UUID | None:
    """Whose address that is; None for any other, and where the seal does not fit."""
    return _read(secret, REPLY, address, domain)


def return_address(secret: str, notification_id: uuid.UUID, domain: str) -> str:
    """Where a mail comes back to that cannot be delivered (RFC 5321, 4.4: the reverse-path)."""
    return f"{RETURN}+{_sealed(secret, RETURN, notification_id)}@{domain}"


def read_return_address(secret: str, address: str, domain: str) -> uuid.UUID | None:
    """Of which notification the mail came back; None for any other address, and where the seal does not fit."""
    return _read(secret, RETURN, address, domain)


def feed_token(secret: str, person_id: uuid.UUID, nonce: uuid.UUID) -> str:
    """What a person's calendar address ends in. A new nonce makes the old address worthless."""
    return f"{person_id.hex}{_seal(secret, 'feed', person_id.bytes + nonce.bytes).hex()[:LINK_SEAL]}"


def read_feed_token(token: str) -> uuid.UUID | None:
    """Whose feed a token claims to be, for the nonce to be looked up; it proves nothing by itself."""
    if len(token) != 32 + LINK_SEAL or not token.isascii():
        return None
    try:
        return uuid.UUID(hex=token[:32])
    except ValueError:
        return None


def welcome_token(secret: str, person_id: uuid.UUID, nonce: uuid.UUID) -> str:
    """What the link of an invitation ends in, as a feed's token does; `read_feed_token` tells whose it claims to be."""
    return f"{person_id.hex}{_seal(secret, 'welcome', person_id.bytes + nonce.bytes).hex()[:LINK_SEAL]}"


def address_code(secret: str, person_id: uuid.UUID, nonce: uuid.UUID) -> str:
    """Eight decimal digits that prove that a mail to a new address has arrived."""
    number = int.from_bytes(_seal(secret, "address", person_id.bytes + nonce.bytes)[:8], "big")
    return str(number % 10**8).zfill(8)


def unsubscribe_token(secret: str, person_id: uuid.UUID, topic: Topic) -> str:
    """What the link of a mail's List-Unsubscribe ends in (RFC 8058)."""
    return f"{topic}-{person_id.hex}{_seal(secret, 'unsubscribe', person_id.bytes + topic.encode()).hex()[:LINK_SEAL]}"


def read_unsubscribe_token(secret: str, token: str) -> tuple[uuid.UUID, Topic] | None:
    """Who wants no more mail about what; None where the seal does not fit."""
    word, _, rest = token.partition("-")
    try:
        topic, person_id = Topic(word), uuid.UUID(hex=rest[:32])
    except ValueError:
        return None
    return (person_id, topic) if matches(unsubscribe_token(secret, person_id, topic), token) else None


def matches(expected: str, given: str) -> bool:
    """Whether they are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(expected.encode(), given.encode(errors="replace"))


def lock(secret: str, value: str) -> bytes:
    """A value encrypted for the database; without the configured secret it cannot be read."""
    return Fernet(_fernet_key(secret)).encrypt(value.encode())


def unlock(secret: str, locked: bytes) -> str | None:
    """What was locked; None where it was locked with another secret."""
    try:
        return Fernet(_fernet_key(secret)).decrypt(locked).decode()
    except InvalidToken:
        return None


def _fernet_key(secret: str) -> bytes:
    return base64.urlsafe_b64encode(_seal(secret, "lock", b""))


def _sealed(secret: str, purpose: str, identifier: uuid.UUID) -> str:
    seal = base64.b32encode(_seal(secret, purpose, identifier.bytes)[:10])
    return (base64.b32encode(identifier.bytes)[:ID_CHARACTERS] + seal).decode().lower()


def _read(secret: str, purpose: str, address: str, domain: str) -> uuid.UUID | None:
    local, _, host = address.rpartition("@")
    word, _, sealed = local.lower().partition("+")
    if (word, host.lower()) != (purpose, domain.lower()) or len(sealed) != ID_CHARACTERS + SEAL_CHARACTERS:
        return None
    try:
        identifier = uuid.UUID(bytes=base64.b32decode(f"{sealed[:ID_CHARACTERS]}======".upper()))
    except ValueError:  # binascii.Error is one
        return None
    return identifier if matches(_sealed(secret, purpose, identifier), sealed) else None


def _seal(secret: str, purpose: str, value: bytes) -> bytes:
    return hmac.new(secret.encode(), f"visavis {purpose} ".encode() + value, hashlib.sha256).digest()
