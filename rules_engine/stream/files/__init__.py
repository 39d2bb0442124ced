"""Events from files: rows are read (``rows.py``), made events (``mapping.py``), and taken (``ingest.py``).

Begin with ``ingest.py``. Formats with columns that have types are in ``parquet.py``.
"""
