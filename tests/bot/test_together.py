"""What many ask at the same moment is asked of the database once, and an outage is told to all of them."""

import asyncio

import pytest

from bot.together import Together
from supervision.errors import Transient


class Library:
    """Answers with the length of each word, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[set[str]] = []
        self.away = False

    async def answer(self, words: set[str]) -> dict[str, int]:
        self.asked.append(set(words))
        await asyncio.sleep(0.01)
        if self.away:
            raise OSError
        return {word: len(word) for word in words if word}


async def test_one_question_at_a_time_for_all_who_ask() -> None:
    library = Library()
    together = Together(library.answer)
    found = await asyncio.gather(*(together.ask(word) for word in ("a", "bb", "a", "")))
    assert [answer.get(word) for answer, word in zip(found, ("a", "bb", "a", ""), strict=True)] == [1, 2, 1, None]
    assert library.asked == [{"a", "bb", ""}]
    assert (await together.ask("ccc", "bb")) == {"ccc": 3, "bb": 2}
    assert len(library.asked) == 2


async def test_what_is_asked_meanwhile_waits_for_the_next_question() -> None:
    library = Library()
    together = Together(library.answer)
    first = asyncio.create_task(together.ask("a"))
    await asyncio.sleep(0.005)
    later = await asyncio.gather(together.ask("bb"), together.ask("ccc"))
    assert await first == {"a": 1}
    assert list(later) == [{"bb": 2, "ccc": 3}] * 2
    assert library.asked == [{"a"}, {"bb", "ccc"}]


async def test_an_outage_is_everybodys_and_over_with_the_next_question() -> None:
    library = Library()
    together = Together(library.answer)
    library.away = True
    failures = await asyncio.gather(together.ask("a"), together.ask("bb"), return_exceptions=True)
    assert [type(failure) for failure in failures] == [Transient, Transient]
    library.away = False
    assert await together.ask("a") == {"a": 1}


async def test_who_asked_for_all_and_was_stopped_leaves_an_outage_to_the_others() -> None:
    library = Library()
    together = Together(library.answer)
    first, second = asyncio.create_task(together.ask("a")), asyncio.create_task(together.ask("bb"))
    await asyncio.sleep(0.005)
    first.cancel()
    with pytest.raises(Transient):
        await second
    assert await together.ask("a") == {"a": 1}
