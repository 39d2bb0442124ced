"""Events as they come, from a file, a client or Kafka, to transitions and fired triggers.

Begin with ``worker.py``: it takes events in (``intake.py``), judges entities (``judging.py``), looks at everyone when
that is requested (``sweeper.py``), and publishes (``publishing.py``). What it rests on is beside it: leases, timers,
the compare-and-set of ``commit.py``, and the ledger. May import ``delivery`` and what lies below.
"""
