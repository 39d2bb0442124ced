"""Membership transitions, triggers, their records and timers, and the delivery of actions to sinks."""
