"""`resume` of a projection: what it has missed is folded from where it was suspended, and workers keep it up again."""

import time
from dataclasses import dataclass, replace

from spanfold.language.errors import Misconfigured
from spanfold.projections.generation_states import AT_REST, KEPT_UP, GenerationState
from spanfold.projections.generations.lifecycle import GenerationRow
from spanfold.projections.generations.swap import resume as hand_back
from spanfold.stream_processors.rebuild.generation_loader import GenerationLoader
from spanfold.stream_processors.rebuild.rebuild_context import RebuildContext
from spanfold.stream_processors.rebuild.takeover import when_possible


@dataclass(frozen=True, slots=True)
class Resumed:
    """What was done to a projection: its generation, how many records it had missed, how long it took (s), and for how long
    commits waited at most (s).
    """

    projection: str
    generation: int
    records: int
    total_s: float
    blocked_s: float


def resume(context: RebuildContext, workers: int) -> Resumed:
    """Fold what the suspended generation lacks, beside the workers; then hand it back to them in one transaction. If the live one
    and its follower are suspended, both.

    ProjectionFailed when it fails again; Misconfigured when it is not suspended, this code has another fold version, or the
    log no longer holds what it lacks. It stays suspended then. It may be killed and called again.
    """
    resumed = [_resume(context, generation, workers) for generation in _suspended(context)]
    return replace(
        resumed[-1],
        records=sum(each.records for each in resumed),
        total_s=sum(each.total_s for each in resumed),
        blocked_s=max(each.blocked_s for each in resumed),
    )


def _resume(context: RebuildContext, generation: GenerationRow, workers: int) -> Resumed:
    began = time.monotonic()
    with GenerationLoader(context, generation, workers) as loader:
        judged, offsets = context.judged(), loader.next_offsets()
        loader.refuse_gaps(judged)
        context.progress.step("folding what it has missed")
        loader.load(judged)
        waits = when_possible(hand_back, context, loader, generation)
    records = sum(judged[partition] - offset for partition, offset in offsets.items())
    return Resumed(context.projection.name, generation.number, records, time.monotonic() - began, waits.blocked_s)


def _suspended(context: RebuildContext) -> list[GenerationRow]:
    projection = context.projection
    suspended = [generation for generation in context.generations(*KEPT_UP) if generation.suspended]
    if not suspended:
        raise Misconfigured(_why_not(context))
    for generation in suspended:
        if generation.fold_version != projection.fold_version:
            raise Misconfigured(
                f"{projection.name} was suspended with fold version {generation.fold_version}, this code has "
                f"{projection.fold_version}: run `spanfold rebuild {projection.name}`"
            )
    return suspended


def _why_not(context: RebuildContext) -> str:
    name = context.projection.name
    for generation in context.generations(*AT_REST):
        if generation.suspended:
            previous = generation.state == GenerationState.PREVIOUS
            command = f"spanfold projections drop-previous {name}" if previous else "spanfold as-of --drop SCHEMA"
            return (
                f"generation {generation.number} of {name} ({generation.state}) is suspended because an erasure failed in it. "
                f"Workers do not keep it up, so there is nothing to resume: drop it with `{command}`"
            )
    return f"{name} is not suspended: nothing to resume"
