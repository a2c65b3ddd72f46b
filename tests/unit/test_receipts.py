"""Receipts as homeservers write them, and the order of events that they are held against."""

import pytest

from bot.receipts import Order, Receipt, read_receipts

ANA, BRUNO = "@ana:localhost", "@bruno:localhost"


def receipt(content: object) -> dict[str, object]:
    return {"type": "m.receipt", "content": content}


def test_receipts_are_read() -> None:
    """Matrix 1.18, "Receipts": several people, several events, and one for a thread."""
    events = [
        receipt({"$one": {"m.read": {ANA: {"ts": 1}, BRUNO: {"ts": 2, "thread_id": "main"}}}}),
        {"type": "m.typing", "content": {"user_ids": [ANA]}},
        receipt({"$two": {"m.read.private": {ANA: {"ts": 3}}}, "$three": {"m.read": {ANA: {"thread_id": "$one"}}}}),
    ]
    assert read_receipts(events) == [Receipt(ANA, "$one"), Receipt(BRUNO, "$one"), Receipt(ANA, "$three")]


@pytest.mark.parametrize(
    "event", [None, 1, {}, receipt(None), receipt([]), receipt({"$one": 1}), receipt({"$one": {"m.read": [ANA]}})]
)
def test_what_is_malformed_is_passed_over(event: object) -> None:
    assert read_receipts([event]) == []


def test_order_is_that_of_the_first_coming() -> None:
    order = Order()
    order.note(["$one", "$two"])
    order.note(["$two", "$three", "$one"])
    assert order.reaches("$one", "$one")
    assert order.reaches("$three", "$two")
    assert not order.reaches("$one", "$two")


def test_what_is_forgotten_is_older_than_what_is_held() -> None:
    order = Order(most=2)
    order.note(["$one", "$two", "$three"])
    assert order.reaches("$two", "$one")
    assert order.reaches("$one", "$three") is None
    assert order.reaches("$one", "$one") is None
