"""Actions on their way to sinks: queues, couriers, retries, and the circuit breaker.

Begin with ``courier.py``; ``sinks/`` has one module for each kind of sink. May import ``triggers`` and what lies below.
"""
