"""Asking the database once what many ask at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from supervision.db import DATABASE_AWAY
from supervision.errors import Transient

K = TypeVar("K")
V = TypeVar("V")


@dataclass
class _Question(Generic[K, V]):
    """What is asked together; `answer` once there is one."""

    keys: set[K] = field(default_factory=set)
    answer: Mapping[K, V] | None = None


class Together(Generic[K, V]):
    """Gathers what is asked in one turn of the event loop, and while another question is open, into one.

    `answer` is given all keys, and may leave out those that have none.
    """

    def __init__(self, answer: Callable[[set[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._answer = answer
        self._question: _Question[K, V] = _Question()
        self._asking = asyncio.Lock()

    async def ask(self, *keys: K) -> Mapping[K, V]:
        """The answer to at least these keys. Raises Transient where the database is away."""
        question = self._question
        question.keys.update(keys)
        await asyncio.sleep(0)  # let whoever else has something to ask now put it
        async with self._asking:
            if question is self._question:
                self._question = _Question()
                try:
                    question.answer = await self._answer(question.keys)
                except DATABASE_AWAY as error:
                    raise Transient("database") from error
        if question.answer is None:
            raise Transient("database")  # whoever asked for all of us failed
        return question.answer
