"""Transitions on their way to the streams of one process: read once, remembered for a while, handed to each reader.

Begin with ``hub.py``; ``rules_engine/service/streams.py`` sends what it hands on.
"""
