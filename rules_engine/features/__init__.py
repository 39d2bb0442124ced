"""Features of entities, in Feast.

``online/`` reads them at request time, ``writing/`` writes them in bulk, ``offline/`` reads them as of an instant,
``feast/`` is the Feast repository itself. Begin with ``online/reader.py`` and ``writing/writer.py``.
``online_store.py``, ``arrow_engine.py`` and ``spark_engine.py`` are named in ``feature_store.yaml``, so their paths
stay. May import ``events`` and what lies below.
"""
