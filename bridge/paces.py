"""How many mails are sent at once, and whether any are, by what the mail server bears."""

import random
import time

STEADY_SECONDS = 5.0  # how long to be content with the connections that the server gives


class Pace:
    """At most `most` at once; fewer while the server gives fewer connections, none for a while when it gives none.

    The first pause is `first` seconds, each further one twice as long up to `longest`. After an outage one mail goes
    ahead, and each that finds the server there doubles the number.
    """

    def __init__(self, most: int, *, first: float = 0.5, longest: float = 60.0) -> None:
        self.most = most
        self.first = first
        self.longest = longest
        self.width = most
        self._failures = 0
        self._paused_until = 0.0  # of time.monotonic()
        self._grows_at = 0.0

    @property
    def pause(self) -> float:
        """Seconds to wait before the next mail."""
        return max(0.0, self._paused_until - time.monotonic())

    def note_reached(self) -> None:
        """The server took a mail, or had something to say about it."""
        self._failures = 0
        self._paused_until = 0.0
        if self.width < self.most and time.monotonic() >= self._grows_at:
            self.width = min(self.most, 2 * self.width)

    def note_unreachable(self, opened: int) -> None:
        """A connection could not be had, while this many were open."""
        self.width = min(self.width, max(1, opened))
        if opened:
            self._grows_at = time.monotonic() + STEADY_SECONDS
            return
        longest = min(self.longest, self.first * 2.0 ** min(self._failures, 10))
        self._failures += 1
        jitter = random.uniform(0.75, 1.0)  # noqa: S311 - it spreads load and guards no secret
        self._paused_until = time.monotonic() + longest * jitter
