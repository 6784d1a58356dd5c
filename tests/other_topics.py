"""Topics that collide with ours."""

from spanfold.topics import Topic, TopicKind

TRACES = Topic("acme.traces", TopicKind.CONDITIONAL, ("OrderPlaced",))
SPANS = Topic("acme.spans", TopicKind.CONDITIONAL, ("SpanRecorded",))
NO_TOPIC = "traces"
