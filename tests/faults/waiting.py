"""A fault that did not bite fails its schedule: it would prove nothing."""

from tests.support.waiting import ConditionNotMet


class DidNotBite(ConditionNotMet):
    """What the fault should have caused did not happen."""
