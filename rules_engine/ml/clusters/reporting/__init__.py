"""The report on a fit: a page with pictures, for people who want to use the clusters.

Begin with ``report.py``, which puts the page together; ``pictures.py`` draws.
"""
