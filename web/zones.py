"""What the time zones are called that a person may choose, in their language. Pure."""

import functools
import unicodedata
import zoneinfo

import babel
from babel.core import get_global
from babel.dates import get_timezone_location

from supervision import people


def name_all(language: str, own: str) -> dict[str, str]:
    """Each that can be chosen and what it is called: its city and country in a language, in the order of the alphabet.

    Of several names of one zone there is the person's own, or else the one that CLDR uses.
    """
    found = {label: own if own in zones else zones[0] for label, zones in _places(language).items()}
    return {zone: label for label, zone in found.items()} | {"UTC": "UTC"}


@functools.cache
def _places(language: str) -> dict[str, list[str]]:
    locale = babel.Locale.parse(language, sep="-")
    countries, other_names = get_global("zone_territories"), get_global("zone_aliases")
    found: dict[str, list[str]] = {}
    for zone in sorted(people.known_zones(), key=lambda one: (one in other_names, one)):
        country = countries.get(other_names.get(zone, zone))
        if "/" in zone and country in locale.territories:
            city = get_timezone_location(zoneinfo.ZoneInfo(zone), locale=locale, return_city=True)
            found.setdefault(f"{city.rpartition('/')[2]}, {locale.territories[country]}", []).append(zone)
    return {label: found[label] for label in sorted(found, key=_without_accents)}


def _without_accents(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().casefold()
