"""Every sentence that the pages and the API can say exists, in both languages; every refusal has its status."""

import re
from pathlib import Path

import pytest

import web
from supervision import errors, outside, texts
from supervision.errors import Refused
from supervision.models import Attendance, Consent, Fault, PairStatus, Role
from supervision.people import LANGUAGES
from web import demo, pages, problems

HOME = Path(web.__file__).parent
# Keys that are put together at run time, by what precedes their varying end.
VARYING = {
    "web.role.": [str(role) for role in Role],
    "web.role_name.": [str(role) for role in Role],
    "web.pair_status.": [str(status) for status in PairStatus],
    "web.done.": sorted(pages.RESULTS),
    "web.calendar_error.": list(outside.ERRORS),
    "web.status.": ["400", "401", "403", "404", "405", "409", "412", "413", "422", "429", "500"],
    "web.meaning.": ["400", "401", "404", "405", "413"],
    "web.demo.answer_": list(demo.ANSWERS),
    "web.welcome.room_": ["waiting", "not_made", "invited", "joined", "ready"],
    "web.fault.": [str(one) for one in Fault],
    "web.room_export_": [str(one) for one in Consent],
    "web.attendance_own_": [str(one) for one in Attendance],
    "web.attendance_other_": [str(one) for one in Attendance],
    "web.": ["confirm", "decline"],
    "status.": [],
}


def used() -> set[str]:
    """Every key that stands in a template or in the code."""
    files = [*HOME.rglob("*.py"), *HOME.glob("templates/*.html")]
    found = {key for file in files for key in re.findall(r"""["'](web\.[a-z_.]+[a-z])["']""", file.read_text())}
    stems = {stem for file in files for stem in re.findall(r"""["'](web\.[a-z_.]*\.)["{']""", file.read_text())}
    assert stems <= set(VARYING)
    events = {key for key in found if re.search(rf"""log\.\w+\(\s*["']{re.escape(key)}["']""", source())}
    return found - events


def source() -> str:
    return "".join(file.read_text() for file in HOME.rglob("*.py"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_exists_and_is_used(language: str) -> None:
    varying = {f"{stem}{end}" for stem, ends in VARYING.items() for end in ends}
    ours = {key for key in texts.keys(language) if key.startswith("web.")}
    assert ours == used() | varying


def test_every_refusal_has_its_status() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Refused)}
    assert set(problems.STATUS) == kinds - {Refused}
