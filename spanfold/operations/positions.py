"""Positions and topics as operators write them: spanfold.traces/0@42, or just traces/0@42."""

from dataclasses import replace

from spanfold.language.errors import InvalidInput
from spanfold.language.positions import Position
from spanfold.language.topics import installed_topics


def position_of(text: str, prefix: str = "") -> Position:
    """The position that is written so. InvalidInput when it is none, or there is no such topic; see topic_name."""
    position = Position.parse(text)
    return replace(position, topic=topic_name(position.topic, prefix))


def topic_name(text: str, prefix: str = "") -> str:
    """The topic's name, of which the first part may be left out and the installation's prefix be there."""
    bare = text.removeprefix(prefix)
    for topic in installed_topics():
        if bare in (topic.name, topic.short_name):
            return topic.name
    raise InvalidInput(f"unknown topic {text}; expected one of {', '.join(topic.name for topic in installed_topics())}")
