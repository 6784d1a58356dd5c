"""Topics that collide with ours."""

from spanfold.language.topics import Topic, TopicKind

TRACES = Topic("acme.traces", TopicKind.CONDITIONAL, ("OrderPlaced",))
SPANS = Topic("acme.spans", TopicKind.CONDITIONAL, ("SpanRecorded",))
NO_TOPIC = "traces"
