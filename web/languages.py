"""Which of our languages a browser asks for, before we know the person."""

from supervision.people import LANGUAGES


def preferred(accepted: str) -> str:
    """The language of an `Accept-Language` header (RFC 9110, section 12.5.4): Portuguese where it names neither."""
    best, best_weight = LANGUAGES[0], 0.0
    for part in accepted[:500].split(","):
        tag, *parameters = (piece.strip().lower() for piece in part.split(";"))
        language = {"pt": "pt-BR", "en": "en"}.get(tag.split("-")[0])
        weight = _weight(parameters)
        if language and weight > best_weight:
            best, best_weight = language, weight
    return best


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, float(value))
            except ValueError:
                return 0.0
    return 1.0
