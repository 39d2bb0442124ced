"""Rules on a simulated clock: the tests beside definitions, and recorded events through segments and triggers.

Begin with ``case_files.py`` (a ``*.test.yaml`` file), ``segment_tests.py`` and ``simulate.py``. May import ``batch``
and what lies below.
"""
