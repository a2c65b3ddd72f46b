"""Where an event says that its files are."""

import time
from typing import Any

import pytest

from bot.media import Named, Source, find, read_source

MXC = "mxc://example.org/"
KEY, COUNTER, SHA256 = b"k" * 32, b"c" * 16, b"s" * 32
KEY_TEXT = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s"
COUNTER_TEXT = "Y2NjY2NjY2NjY2NjY2NjYw=="
SHA_TEXT = "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M="


def encrypted(name: str, **other: Any) -> dict[str, Any]:
    return {
        "url": MXC + name,
        "v": "v2",
        "key": {"kty": "oct", "alg": "A256CTR", "k": KEY_TEXT},
        "iv": COUNTER_TEXT,
        "hashes": {"sha256": SHA_TEXT},
        **other,
    }


def source(name: str) -> Source:
    return Source(MXC + name, KEY, COUNTER, SHA256)


def test_a_file_with_its_thumbnail() -> None:
    content = {
        "msgtype": "m.image",
        "body": "a caption",
        "filename": "photo.png",
        "file": encrypted("one"),
        "info": {
            "mimetype": "image/png",
            "thumbnail_file": encrypted("two"),
            "thumbnail_info": {"mimetype": "image/jpeg"},
        },
    }
    assert find(content) == [
        Named(source("one"), "photo.png", "image/png"),
        Named(source("two"), None, "image/jpeg", is_preview=True),
    ]


def test_an_edit_shows_its_new_file_too() -> None:
    content = {
        "msgtype": "m.text",
        "body": "* notes",
        "m.new_content": {"msgtype": "m.file", "body": "notes.txt", "file": encrypted("new")},
    }
    assert find(content) == [Named(source("new"), "notes.txt")]


def test_the_same_file_named_otherwise_is_named_twice() -> None:
    content = {"body": "a.txt", "file": encrypted("one"), "m.new_content": {"body": "b.exe", "file": encrypted("one")}}
    assert find(content) == [Named(source("one"), "a.txt"), Named(source("one"), "b.exe")]


def test_galleries_stickers_and_pictures_within_text() -> None:
    gallery = {"itemtypes": [{"body": "a", "file": encrypted("a")}, {"body": "b", "url": MXC + "b"}]}
    assert find(gallery) == [Named(source("a"), "a"), Named(Source(MXC + "b"), "b")]
    text = {"body": "hello", "formatted_body": f'hello <img alt="x" src="{MXC}emote"> <IMG SRC={MXC}other>'}
    assert find(text) == [
        Named(Source(MXC + "emote"), is_preview=True),
        Named(Source(MXC + "other"), is_preview=True),
    ]


@pytest.mark.parametrize(
    "html",
    [
        f'<img alt="<b>a > b</b>" src="{MXC}one">',
        f"<img\nSRC = ' {MXC}one'>",
        '<img src="mxc&#58;&#x2f;&#0000047;example.org/one">',
        "<img src=mxc&colon;&sol;&SOL;example.org/one>",
    ],
)
def test_a_picture_within_text_is_found_however_it_is_written(html: str) -> None:
    assert find({"formatted_body": html}) == [Named(Source(MXC + "one"), is_preview=True)]


@pytest.mark.parametrize("begun", ["<img ", "<img src", '<img a="mxc://', "<img src= ", "&#0", "src=&#x", " ", "0"])
def test_no_text_takes_long_to_look_through(begun: str) -> None:
    html = f"<img src={begun * (60_000 // len(begun))}"
    began = time.process_time()
    assert find({"formatted_body": html}) == []
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "content",
    [
        {"msgtype": "m.text", "body": f"look at {MXC}one"},
        {"url": "https://example.org/x.png"},
        {"file": "nonsense", "url": 5, "info": {"thumbnail_file": []}},
        {"m.relates_to": {"event_id": "$1", "rel_type": "m.thread"}},
    ],
)
def test_what_shows_no_file(content: dict[str, Any]) -> None:
    assert find(content) == []


def test_nothing_is_looked_for_without_end() -> None:
    content: dict[str, Any] = {"file": encrypted("deep")}
    for _ in range(100):
        content = {"content": content}
    assert find(content) == []


@pytest.mark.parametrize(
    "lack",
    [{"key": {}}, {"key": "x"}, {"iv": "AA"}, {"iv": None}, {"hashes": {}}, {"hashes": {"sha256": "é"}}],
)
def test_a_file_that_cannot_be_decrypted_is_broken(lack: dict[str, Any]) -> None:
    found = read_source(encrypted("one", **lack), None)
    assert found is not None
    assert found.broken


def test_base64_is_read_as_leniently_as_apps_read_it() -> None:
    found = read_source(encrypted("one", key={"k": KEY_TEXT + "="}, hashes={"sha256": SHA_TEXT.rstrip("=")}), None)
    assert found == source("one")


@pytest.mark.parametrize(
    ("mxc", "server"), [(MXC + "one", "example.org"), ("mxc://h:8448/x", "h:8448"), ("mxc://", "")]
)
def test_whose_file_it_is(mxc: str, server: str) -> None:
    assert Source(mxc).server == server
