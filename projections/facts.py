"""What a projection folds."""

from spanfold.schemas.codec import Fields

Fact = tuple[int, str, Fields]
"""An accepted, readable, storable event: its record's offset, its type, its fields with tags and lists as `jsonb` bytes. The
events of an EventBatch are several facts of one offset, in their order and never apart.
"""
