"""The offline event log: Parquet files by event and day.

Begin with ``event_log.py``; ``offline.py`` reads it as of an instant.
"""
