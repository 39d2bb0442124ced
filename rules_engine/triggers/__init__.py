"""Takes entities through segments and triggers: pure functions, without a store or a clock of their own.

Begin with ``machine.py``: from an entity's record and a step (an event, a timer, a look) to the next record, with the
transitions and actions that follow. May import ``project`` and what lies below.
"""
