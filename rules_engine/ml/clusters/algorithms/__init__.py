"""The algorithms that find clusters: one file each, listed in ``table.py``.

Begin with ``base.py``, which says what an algorithm has to have, and ``kmeans.py``. Each leaves an assigner behind:
plain numbers that place whoever comes later, with nothing fitted.

============================== ============================================================================
k-means, agglomerative         the nearest centre (``centers.py``)
Gaussian mixture               the most probable component
DBSCAN                         the cluster of the nearest core point within eps; farther away is in none
HDBSCAN                        the cluster of the nearest fitted entity by mutual reachability, within reach
============================== ============================================================================
"""
