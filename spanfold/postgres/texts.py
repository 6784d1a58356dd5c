"""Texts that somebody else wrote, as Postgres can hold them."""


def storable(text: str, longest: int | None = None) -> str:
    """The text with NUL and lone surrogates escaped; at most so many characters of it, and an ellipsis for the rest."""
    escaped = text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
    return escaped if longest is None or len(escaped) <= longest else f"{escaped[:longest]}…"
