"""Every error that Visavis raises on purpose."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class SupervisionError(Exception):
    """The root of them all."""


class Refused(SupervisionError):
    """An expected no, told to the person as the translated sentence `key` with `params` (see texts.py)."""

    default_key: ClassVar[str] = "refused.not_understood"

    def __init__(self, key: str | None = None, **params: object) -> None:
        self.key = key or self.default_key
        self.params = params
        super().__init__(self.key)


class NotUnderstood(Refused):
    """The words or values make no sense."""


class NotAllowed(Refused):
    """The person may not do this."""

    default_key = "refused.not_allowed"


class NotFound(Refused):
    """There is no such thing, or it is not this person's to see."""

    default_key = "refused.not_found"


class SlotTaken(Refused):
    """Somebody's time is already held in that range."""

    default_key = "refused.slot_taken"


class TooLate(Refused):
    """The time for this has passed."""

    default_key = "refused.too_late"


class TooSoon(Refused):
    """The time is nearer than the supervisor's minimum notice."""

    default_key = "refused.too_soon"


class AlreadyAnswered(Refused):
    """The appointment's status does not allow this any more."""

    default_key = "refused.already_answered"


class Stale(Refused):
    """The caller saw an older revision."""

    default_key = "refused.stale"


class TooMany(Refused):
    """Too many requests in a short time."""

    default_key = "refused.too_many"


class PairArchived(Refused):
    """The pair is closed; nothing in it changes any more."""

    default_key = "refused.pair_archived"


class Ambiguous(Refused):
    """More than one thing could be meant."""

    default_key = "refused.ambiguous"


class DeliveryFailed(SupervisionError):
    """A notification could not be delivered. `code` is a short static word for the outbox row, never content."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class Transient(DeliveryFailed):
    """Trying again may help, after `retry_after` seconds if the other side said so."""

    def __init__(self, code: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(code)


class Permanent(DeliveryFailed):
    """Trying again will not help."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the configuration: which key, what, and where its value came from."""

    key: str
    message: str
    origin: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message} (from {self.origin})"


class ConfigInvalid(SupervisionError):
    """The configuration cannot be used. It lists every problem, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class DatabaseTooNew(SupervisionError):
    """The database was migrated by a newer Visavis than this one."""


class DatabaseTooOld(SupervisionError):
    """The database lacks migrations that this Visavis needs."""
