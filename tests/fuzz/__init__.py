"""Damaged input of every kind, as untrusted people and broken programs send it.

``python -m tests.fuzz --minutes 5`` damages definitions and their tests, files of events of every kind, read plans,
stored versions of models, values of the online store, and requests, and uses the product on them. Whatever it is
given, the product may answer or refuse with an error of its own; any other exception is a failure, and so is a run of
over two seconds or of over 500 MB. Each failure is printed with its kind and seed, and ``--kind KIND --seed SEED
--runs 1`` does it once more.

``tests/e2e/test_fuzz.py`` does some of each kind.
"""
