"""Serve the console: pages for people who look at segments, people, triggers and the state of operation.

Begin with ``routes.py``, which lists the pages; ``visits.py`` says what is done for each of them. What a page shows is
read by the functions that the commands use too, and what takes long runs in processes of its own (``background.py``).
"""
