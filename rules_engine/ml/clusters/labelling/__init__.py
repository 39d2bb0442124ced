"""Give every entity the label of a cluster: rows of labels, the sources that hold them, and the run that writes them.

Begin with ``attach.py``, which does the run; ``labels.py`` makes rows and ``label_store.py`` keeps them.
"""
