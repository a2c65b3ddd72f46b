"""What holds in a room, in sentences: one for the files, and one for each of the other settings."""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any

from bot.replies import Line
from supervision.models import Consent
from supervision.rooms import COLUMNS, FOREVER, OF_FILES, RoomSettings
from supervision.texts import Minutes, Reader

DAY = 24 * 60  # minutes


def name_kinds(says: Reader, kinds: Iterable[object]) -> str:
    """`imagens, áudio e PDF`."""
    return says.list_names([says.say(f"kind.{kind}") for kind in kinds])


def lines_of(says: Reader, settings: RoomSettings, usual_minutes: int) -> list[Line]:
    """All settings; `usual_minutes` is when a mail tells what is unread where nothing was settled."""
    values = {name: getattr(settings, name) for name in COLUMNS}
    values["kinds"] = settings.ordered_kinds
    if values["unread_minutes"] is None:
        values["unread_minutes"] = usual_minutes
    return lines_for(says, values)


def lines_for(says: Reader, values: Mapping[str, Any]) -> list[Line]:
    """Some settings by name, as they are or as JSON (see rooms.differences)."""
    lines = [_files(says, values)] if values.keys() >= OF_FILES else []
    if "retention_days" in values:
        days = values["retention_days"]
        kept = Line("room.kept", {"days": Minutes(days * DAY)})
        lines.append(Line("room.kept_forever") if days == FOREVER else kept)
    if "unread_minutes" in values:
        lines.append(_unread(values["unread_minutes"]))
    if "export_consent" in values:
        lines.append(Line(f"room.export_{Consent(values['export_consent'])}"))
    if "expires_on" in values:
        lines.append(_expiry(says, values["expires_on"]))
    return lines


def removal_line(says: Reader, removal: tuple[datetime, datetime] | None) -> list[Line]:
    """From when on what is removed, where fewer days of retention remove something."""
    if removal is None:
        return []
    since, before = removal
    return [Line("room.removal", {"since": says.day(since), "before": says.dated(before)})]


def _files(says: Reader, values: Mapping[str, Any]) -> Line:
    if not values["attachments"]:
        return Line("room.files_none")
    return Line("room.files", {"kinds": name_kinds(says, values["kinds"]), "megabytes": values["megabytes"]})


def _unread(minutes: int | None) -> Line:
    if minutes is None:
        return Line("room.unread_usual")
    return Line("room.unread", {"minutes": Minutes(minutes)}) if minutes else Line("room.unread_never")


def _expiry(says: Reader, day: date | str | None) -> Line:
    if day is None:
        return Line("room.expires_never")
    day = date.fromisoformat(day) if isinstance(day, str) else day
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=says.zone)
    return Line("room.expires", {"day": says.day_of_year(noon)})
