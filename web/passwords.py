"""Which passwords we pass on (NIST SP 800-63B, section "Password Verifiers": length and guessable words, no rules)."""

from itertools import pairwise

from supervision.errors import NotUnderstood
from supervision.people import Person

LEAST, ADVISED, MOST = 8, 15, 512  # Synapse takes no more than 512 characters
OUR_WORDS = ("visavis", "password", "senha", "element", "matrix")


def check(password: str, again: str, person: Person, localpart: str) -> str:
    """The password as it was typed. Raises NotUnderstood for one that is too short, long or easily guessed."""
    if password != again:
        raise NotUnderstood("web.refused.passwords_differ")
    if not LEAST <= len(password) <= MOST:
        raise NotUnderstood("web.refused.password_length", least=LEAST, most=MOST)
    if "\0" in password or _is_guessed(password.casefold(), person, localpart):
        raise NotUnderstood("web.refused.password_guessed")
    return password


def _is_guessed(password: str, person: Person, localpart: str) -> bool:
    """One character or a run of them, or hardly more than a word that stands on the page."""
    steps = {ord(after) - ord(before) for before, after in pairwise(password)}
    if len(steps) == 1 and steps <= {-1, 0, 1}:
        return True
    words = {localpart, person.email, person.email.partition("@")[0], *person.name.split(), *OUR_WORDS}
    kernel = password.strip("0123456789!?.-_ ")
    return kernel in {"", *(word.casefold() for word in words)}
