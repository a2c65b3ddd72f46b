"""Public holidays of countries and their subdivisions, as the package `holidays` knows them."""

import asyncio
import functools
import warnings
from collections.abc import Mapping, Sequence
from datetime import date

import structlog

from supervision.errors import NotUnderstood

log = structlog.get_logger()


@functools.lru_cache(maxsize=2048)
def of_year(country: str, subdivision: str | None, year: int) -> frozenset[date]:
    """The public holidays of a year. Codes that the installed package does not know (any more) give none."""
    import holidays  # see open_calendars

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some calendars warn that far years are estimates
        try:
            return frozenset(holidays.country_holidays(country, subdiv=subdivision, years=year))
        except NotImplementedError:
            log.warning("availability.holidays_unknown", country=country)
            return frozenset()


async def open_calendars() -> None:
    """Load all calendars, once in a process: it takes about a second, which nobody else should wait for."""
    if of_year.cache_info().currsize == 0:
        await asyncio.to_thread(of_year, "BR", None, 2000)


@functools.cache
def _subdivisions() -> Mapping[str, Sequence[str]]:
    """The subdivisions of every country whose holidays are known, by its two letters (ISO 3166-1)."""
    import holidays

    known = holidays.list_supported_countries(include_aliases=False)
    return {country: tuple(parts) for country, parts in known.items() if len(country) == 2}


def check_codes(country: str | None, subdivision: str | None) -> tuple[str | None, str | None]:
    """The codes as the package writes them, whatever their case. Refused, with a few that exist, if it has none."""
    if country is None and subdivision is None:
        return None, None
    countries = {one.casefold(): one for one in _subdivisions()}
    found = countries.get((country or "").casefold())
    if found is None:
        some = [one for one in ("AR", "BR", "DE", "ES", "GB", "PT", "US") if one in _subdivisions()]
        raise NotUnderstood("refused.holidays", given=country or subdivision, known=", ".join(some))
    if subdivision is None:
        return found, None
    parts = {one.casefold(): one for one in _subdivisions()[found]}
    part = parts.get(subdivision.casefold())
    if part is None:
        some = list(_subdivisions()[found][:8]) or [found]
        raise NotUnderstood("refused.holidays", given=f"{found} {subdivision}", known=", ".join(some))
    return found, part
