"""Positions as people write them: spanfold.traces/0@42, as every message has them, and two older forms."""

import re
from typing import Final

from spanfold.language.errors import InvalidInput
from spanfold.language.positions import Position
from spanfold.language.topics import installed_topics

_FORMS: Final = (r"/(\d{1,9})@(\d{1,18})", r"\[(\d{1,9})\]@(\d{1,18})", r":(\d{1,9}):(\d{1,18})")
_POSITIONS: Final = [re.compile(rf"([A-Za-z0-9._-]+){form}", re.ASCII) for form in _FORMS]


def position_of(word: str, prefix: str = "") -> Position | None:
    """The position that is written so: spanfold.traces/0@42, spanfold.traces[0]@42 or spanfold.traces:0:42; None for other
    words. InvalidInput when there is no such topic; see topic_name.
    """
    matched = next((found for form in _POSITIONS if (found := form.fullmatch(word))), None)
    return Position(topic_name(matched[1], prefix), int(matched[2]), int(matched[3])) if matched else None


def topic_name(said: str, prefix: str = "") -> str:
    """The topic's name, of which the first part may be left out and the installation's prefix be there."""
    bare = said.removeprefix(prefix)
    for topic in installed_topics():
        if bare in (topic.name, topic.short_name):
            return topic.name
    raise InvalidInput(f"there is no topic {said}; known are {', '.join(topic.name for topic in installed_topics())}")
