"""Give every entity the label of a cluster: what a label is, where it is kept, and the run that writes them.

Begin with ``labels.py``.
"""
