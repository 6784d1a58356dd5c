"""Going on with suspended topics and projections. Which there are: suspensions.py."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from spanfold.kafka.log_ends import bounds_of_topic
from spanfold.language.errors import InvalidInput
from spanfold.language.progress import NO_PROGRESS, ProgressListener
from spanfold.language.topics import installed_topics
from spanfold.operations.installation import Installation
from spanfold.operations.postgres_errors import writes_translated
from spanfold.operations.rebuilding import WORKERS, at_work
from spanfold.postgres.connections import connect
from spanfold.projections.generations.topic_resumption import LogGap, resume_topic
from spanfold.projections.projection import installed
from spanfold.stream_processors.rebuild import resume as steps


@dataclass(frozen=True, slots=True)
class Resumed:
    """A topic or projection that goes on. `records` were missed and have been folded now; `gaps` are lost for ever. `total_s` is
    what it took, in seconds.
    """

    kind: str
    name: str
    records: int = 0
    gaps: Sequence[LogGap] = field(default_factory=tuple)
    total_s: float = 0.0


def resume(
    installation: Installation,
    name: str,
    park: bool = False,
    accept_loss: bool = False,
    workers: int = WORKERS,
    progress: ProgressListener = NO_PROGRESS,
) -> Resumed:
    """Go on with a suspended topic or projection of this name.

    A projection folds what it has missed, with the code of this process: restart the workers first if it was repaired. A topic is
    judged again from where it stopped. `park`: records of the topic that can't be folded are parked, whatever their share.
    `accept_loss`: go on after records that the log has lost; see spanfold.log_gaps.

    InvalidInput for an unknown name, or for an option that is not for it; Misconfigured when it is not suspended or can't go on,
    ProjectionFailed when it fails again, LogUnavailable, StoreUnavailable.
    """
    if name in installed():
        if park or accept_loss:
            raise InvalidInput(f"{name} is a projection: park and accept_loss are for topics")
        with at_work(installation, name, progress) as context:
            done = steps.resume(context, workers)
        return Resumed("projection", name, done.records, total_s=done.total_s)
    if name not in {topic.name for topic in installed_topics()}:
        names = [*sorted(installed()), *(topic.name for topic in installed_topics())]
        raise InvalidInput(f"unknown projection or topic {name}; expected one of {', '.join(names)}")
    bounds = bounds_of_topic(installation.settings, name)
    with writes_translated(), connect(installation.dsn, "spanfold resume") as connection:
        return Resumed("topic", name, gaps=resume_topic(connection, name, bounds, park=park, accept_loss=accept_loss))
