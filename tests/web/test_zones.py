"""Time zones as a person chooses them."""

from supervision import people
from web.zones import name_all


def test_a_zone_is_called_by_its_city_and_country_in_the_reader_s_language() -> None:
    zones = ("America/Sao_Paulo", "Europe/Lisbon", "Europe/London", "America/Argentina/Buenos_Aires", "UTC")
    portuguese, english = name_all("pt-BR", "Europe/Lisbon"), name_all("en", "Europe/Lisbon")
    assert [(portuguese.get(zone), english.get(zone)) for zone in zones] == [
        ("São Paulo, Brasil", "Sao Paulo, Brazil"),
        ("Lisboa, Portugal", "Lisbon, Portugal"),
        ("Londres, Reino Unido", "London, United Kingdom"),
        ("Buenos Aires, Argentina", "Buenos Aires, Argentina"),
        ("UTC", "UTC"),
    ]


def test_each_place_is_there_once_under_the_name_that_the_person_has() -> None:
    for own in ("Asia/Calcutta", "Asia/Kolkata", "Brazil/East", "America/Sao_Paulo"):
        zones = name_all("pt-BR", own)
        assert own in zones
        assert len(set(zones.values())) == len(zones)
        assert {*zones} <= people.known_zones()


def test_accents_change_nothing_of_the_order() -> None:
    names = [*name_all("pt-BR", "UTC").values()]
    begins = names.index("Adelaide, Austrália")
    assert names[begins : begins + 3] == ["Adelaide, Austrália", "Áden, Iêmen", "Adis Abeba, Etiópia"]
    assert names[-1] == "UTC"
