"""A room's settings as people write them to the bot, in Portuguese and English alike. Pure."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from bot.measures import DAY, DEFAULT, NONE, read_length
from bot.phrases import plain, read_period
from bot.whens import When
from supervision.models import Consent, FileKind

Value = bool | int | str | tuple[str, ...] | When | None
GIGABYTE = 1000  # megabytes


@dataclass(frozen=True)
class RoomChange:
    """A setting of supervision/rooms.py by its name, and what it shall be; None for what holds otherwise.

    `expires_on` is a day as it was said, or None for no such day.
    """

    name: str
    value: Value


class _No(Exception):
    """What was said is no such value."""


YES = frozenset({"yes", "sim", "on", "allowed", "permitido", "permitidos", "permitir", "allow", "ligado", "pode"})
NEVER = NONE | frozenset(
    {"never", "nunca", "for ever", "forever", "sempre", "para sempre", "sem prazo", "sem fim", "no limit", "jamais"}
)
ALL = frozenset({"all", "everything", "any", "todos", "todas", "tudo", "qualquer", "qualquer um"})
KINDS = {
    FileKind.IMAGE: "image images imagem imagens photo photos picture pictures foto fotos",
    FileKind.AUDIO: "audio audios voice voz som sound",
    FileKind.VIDEO: "video videos filme filmes",
    FileKind.PDF: "pdf pdfs",
    FileKind.DOCUMENT: "document documents documento documentos doc docs word office",
    FileKind.TEXT: "text texts texto textos txt",
    FileKind.ARCHIVE: "archive archives zip zips compactado compactados comprimido comprimidos",
}
KIND_WORDS = {word: kind for kind, words in KINDS.items() for word in words.split()}
JOINS = frozenset({"and", "e", "only", "so", "apenas", "somente", "just", "arquivos", "files"})
SIZE = re.compile(
    r"(?:(?:up to|at most|ate|no maximo) )?(?P<count>\d{1,6}) ?(?P<unit>mb?|mi?b|megas?|megabytes?|gb?|gigas?)?"
)
YEARS = re.compile(r"(?P<count>\d{1,3}) ?(?:years?|anos?)")
CONSENTS = {
    **dict.fromkeys(
        ("both", "ambos", "ambas", "os dois", "as duas", "dois", "two", "together", "juntos"), Consent.BOTH
    ),
    **dict.fromkeys(("one", "um", "uma", "cada um", "each", "qualquer um", "alone", "sozinho", "either"), Consent.ONE),
}
ON = re.compile(r"(?:on|em|no dia|dia|after|depois de|until|ate|o dia) ")


def _attachments(said: str) -> RoomChange:
    if said in YES:
        return RoomChange("attachments", True)
    if said in NONE:
        return RoomChange("attachments", False)
    if said in DEFAULT:
        return RoomChange("attachments", None)
    try:
        return _kinds(said)
    except _No:
        return _size(said) if re.search(r"\d ?[mg]", said) else _fail()


def _kinds(said: str) -> RoomChange:
    if said in DEFAULT:
        return RoomChange("kinds", None)
    if said in ALL:
        return RoomChange("kinds", tuple(FileKind))
    words = [word for word in re.split(r"[\s,;/+&]+", said) if word and word not in JOINS]
    if not words or any(word not in KIND_WORDS for word in words):
        raise _No
    named = {KIND_WORDS[word] for word in words}
    return RoomChange("kinds", tuple(kind for kind in FileKind if kind in named))


def _size(said: str) -> RoomChange:
    if said in DEFAULT:
        return RoomChange("megabytes", None)
    found = SIZE.fullmatch(said)
    if found is None:
        raise _No
    return RoomChange("megabytes", int(found["count"]) * (GIGABYTE if (found["unit"] or "m")[0] == "g" else 1))


def _retention(said: str) -> RoomChange:
    if said in DEFAULT:
        return RoomChange("retention_days", None)
    if said in NEVER:
        return RoomChange("retention_days", 0)
    years = YEARS.fullmatch(said)
    if years:
        return RoomChange("retention_days", int(years["count"]) * 365)
    days = int(said) if re.fullmatch(r"\d{1,6}", said, re.ASCII) else _whole_days(said)
    return RoomChange("retention_days", days)


def _whole_days(said: str) -> int:
    minutes = read_length(said)
    if not minutes or minutes % DAY:
        raise _No
    return minutes // DAY


def _unread(said: str) -> RoomChange:
    if said in DEFAULT:
        return RoomChange("unread_minutes", None)
    minutes = 0 if said in NEVER else read_length(re.sub(r"^(?:after|depois de|apos|em|in) ", "", said))
    if minutes is None:
        raise _No
    return RoomChange("unread_minutes", minutes)


def _consent(said: str) -> RoomChange:
    if said in DEFAULT:
        return RoomChange("export_consent", None)
    if said not in CONSENTS:
        raise _No
    return RoomChange("export_consent", CONSENTS[said])


def _expiry(said: str) -> RoomChange:
    if said in NEVER or said in DEFAULT:
        return RoomChange("expires_on", None)
    period = read_period(ON.sub("", said, count=1) if ON.match(said) else said)
    if period is None or period.last is not None:
        raise _No
    return RoomChange("expires_on", period.first)


def _fail() -> RoomChange:
    raise _No


SETTINGS: tuple[tuple[str, Callable[[str], RoomChange]], ...] = (
    ("attachments attachment anexos anexo files arquivos", _attachments),
    ("kinds types tipos", _kinds),
    ("size tamanho", _size),
    ("retention retencao retain keep manter guardar reter", _retention),
    ("unread avisar aviso avisos notifications notificacoes naolidas", _unread),
    ("copy copia export exportacao exportar", _consent),
    ("expires expiry expire expira expirar expiracao closes fecha fechar encerra", _expiry),
)
WORDS = {word: read for words, read in SETTINGS for word in words.split()}


def read_change(text: str) -> RoomChange | None:
    """`anexos não`, `attachments images, pdf`, `retenção 90 dias`, `expires 31/12/2027`; None where it is none."""
    first, _, said = re.sub(r"^nao lidas\b", "naolidas", plain(text)).partition(" ")
    read = WORDS.get(first.strip(":,="))
    said = said.strip(" :=")
    if read is None or not said:
        return None
    try:
        return read(said)
    except _No:
        return None
