"""Answers with how long they last, condition by condition: what a worker asks after every event.

Begin with ``compile.py``.
"""
