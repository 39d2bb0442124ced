"""Modules that pytest does not look into for examples where the optional package that they import is missing."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("pyspark") else ["rules_engine/features/spark_engine.py"]
