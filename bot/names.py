"""Whether a name that somebody gives himself could be taken for another's."""

import unicodedata

# Letters of other scripts, and digits and signs, that are drawn like Latin ones (Unicode TS 39, "confusables").
_LOOKS = {
    "a": "аαᴀɑ4@",
    "b": "вʙ",
    "c": "сϲ",
    "d": "ԁ",
    "e": "еε3",
    "h": "һн",
    "i": "іιı1l|!",
    "j": "ј",
    "k": "кκ",
    "m": "м",
    "o": "оοо0",
    "p": "рρ",
    "s": "ѕꜱ5$",
    "t": "тτ",
    "u": "υ",
    "v": "ѵνᴠ",
    "x": "хχ",
    "y": "уγ",
}
_LATIN = {ord(look): letter for letter, looks in _LOOKS.items() for look in looks}


def imitates(name: str, ours: str) -> bool:
    """Whether `name` looks like `ours` or holds it: case, accents, invisible marks and look-alike letters aside."""
    return _skeleton(ours) in _skeleton(name)


def _skeleton(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).casefold().translate(_LATIN)
    return "".join(letter for letter in plain if letter.isalnum())
