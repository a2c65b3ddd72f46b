"""The time zone that somebody means who names a city, or the zone itself. Pure."""

import functools
import re
import zoneinfo
from difflib import get_close_matches

import babel
from babel.core import get_global
from babel.dates import get_timezone_location

from bot.phrases import plain
from supervision.people import LANGUAGES

# Large cities after which no zone is named, and what people call one.
NEARBY = {
    "America/Sao_Paulo": "brasilia, horario de brasilia, brasilia time, rio de janeiro, rio, belo horizonte, curitiba, "
    "porto alegre, florianopolis, goiania, vitoria, campinas, santos, sp, rj, df",
    "America/Bahia": "salvador, salvador da bahia",
    "America/Fortaleza": "natal, joao pessoa, teresina, sao luis",
    "America/Maceio": "aracaju",
    "America/Belem": "macapa",
    "America/Araguaina": "palmas",
    "Europe/Lisbon": "porto, coimbra, braga, portugal",
    "Europe/Berlin": "munich, munique, hamburg, hamburgo, frankfurt, cologne, colonia, germany, alemanha",
    "Europe/Madrid": "barcelona, sevilla, sevilha, valencia",
    "Europe/Rome": "milan, milano, milao, naples, napoles, turin, turim",
    "Europe/Zurich": "geneva, genebra, basel, basileia, bern, berna, zurique",
    "Europe/London": "edinburgh, edimburgo, manchester",
    "America/New_York": "boston, washington, miami, philadelphia, filadelfia, atlanta",
    "America/Los_Angeles": "san francisco, sao francisco, san diego, seattle",
    "America/Chicago": "houston, dallas, austin",
}
DOTTED = re.compile(r"[_ ]+")
LIKENESS = 0.75


def find(text: str) -> str | None:
    """The IANA name of the zone, or None where the words name none; an offset such as `UTC-3` is no zone."""
    return _zones().get(_key(text))


def near(text: str, language: str) -> list[str]:
    """Up to three cities that are written much like that, in a language."""
    cities = {_key(city): city for city in _cities(language)}
    return [cities[one] for one in get_close_matches(_key(text), cities, n=3, cutoff=LIKENESS)]


def _key(text: str) -> str:
    return DOTTED.sub(" ", plain(text)).strip(" .,!?")


@functools.cache
def _zones() -> dict[str, str]:
    """Zones by every name of theirs, in lower case and without accents."""
    found: dict[str, str] = {}
    shown = _shown()
    for zone in shown:
        found[_key(zone.rpartition("/")[2])] = zone
    for language in LANGUAGES:
        found |= {_key(city): zone for city, zone in _cities(language).items()}
    found |= {_key(city): zone for zone, cities in NEARBY.items() for city in cities.split(",")}
    known = zoneinfo.available_timezones()
    found |= {_key(zone): zone for zone in known if "/" in zone and not zone.startswith("Etc/")}
    return {**found, "utc": "UTC"}


@functools.cache
def _cities(language: str) -> dict[str, str]:
    locale = babel.Locale.parse(language, sep="-")
    return {get_timezone_location(zoneinfo.ZoneInfo(zone), locale=locale, return_city=True): zone for zone in _shown()}


@functools.cache
def _shown() -> tuple[str, ...]:
    """The zones that the Unicode tables know a city of (CLDR, zone_territories)."""
    known = zoneinfo.available_timezones()
    return tuple(sorted(zone for zone in get_global("zone_territories") if zone in known and zone[:4] != "Etc/"))
