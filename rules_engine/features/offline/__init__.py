"""Features as of an instant, read from the offline store as record batches.

Begin with ``point_in_time.py``.
"""
