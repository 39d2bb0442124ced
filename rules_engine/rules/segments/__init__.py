"""The segment document. Begin with ``kind.py``; its nodes are in ``rules/nodes.py``, with the conditions."""
