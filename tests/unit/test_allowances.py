"""A room's settings as people write them."""

import pytest

from bot.allowances import RoomChange, read_change
from bot.commands import Incomplete, Settings, parse
from bot.whens import Date, When
from supervision.models import Consent, FileKind

ALL = tuple(FileKind)


@pytest.mark.parametrize(
    ("said", "name", "value"),
    [
        ("attachments no", "attachments", False),
        ("anexos não", "attachments", False),
        ("Anexos: sim", "attachments", True),
        ("files yes", "attachments", True),
        ("arquivos padrão", "attachments", None),
        ("anexos imagens, pdf", "kinds", (FileKind.IMAGE, FileKind.PDF)),
        ("attachments only images and audio", "kinds", (FileKind.IMAGE, FileKind.AUDIO)),
        ("tipos áudio e vídeo", "kinds", (FileKind.AUDIO, FileKind.VIDEO)),
        ("anexos todos", "kinds", ALL),
        ("kinds all", "kinds", ALL),
        ("kinds default", "kinds", None),
        ("anexos até 10 MB", "megabytes", 10),
        ("tamanho 10 MB", "megabytes", 10),
        ("size 10", "megabytes", 10),
        ("size 2GB", "megabytes", 2000),
        ("tamanho padrao", "megabytes", None),
        ("retenção 90 dias", "retention_days", 90),
        ("retention 90", "retention_days", 90),
        ("retention 2 weeks", "retention_days", 14),
        ("retencao 5 anos", "retention_days", 1825),
        ("retenção nunca", "retention_days", 0),
        ("retention for ever", "retention_days", 0),
        ("retention default", "retention_days", None),
        ("avisar 30 min", "unread_minutes", 30),
        ("avisar depois de 2 h", "unread_minutes", 120),
        ("não lidas 1 dia", "unread_minutes", 1440),
        ("unread never", "unread_minutes", 0),
        ("aviso padrão", "unread_minutes", None),
        ("copy both", "export_consent", Consent.BOTH),
        ("cópia ambos", "export_consent", Consent.BOTH),
        ("exportar um", "export_consent", Consent.ONE),
        ("copia padrao", "export_consent", None),
        ("expira 31/12/2027", "expires_on", When(Date(31, 12, 2027))),
        ("expires on 31 Dec 2027", "expires_on", When(Date(31, 12, 2027))),
        ("expira nunca", "expires_on", None),
    ],
)
def test_a_setting_in_either_language(said: str, name: str, value: object) -> None:
    assert read_change(said) == RoomChange(name, value)  # type: ignore[arg-type]
    assert parse(f"!configurar {said}") == Settings(RoomChange(name, value))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said",
    [
        "attachments",
        "anexos talvez",
        "anexos imagens, foguetes",
        "tamanho grande",
        "retention 90 minutes",
        "retencao logo",
        "avisar 30",
        "expira 1/12 a 3/12",
        "copy three",
    ],
)
def test_what_is_no_setting(said: str) -> None:
    assert read_change(said) is None
    assert parse(f"!settings {said}") == Incomplete("settings")
