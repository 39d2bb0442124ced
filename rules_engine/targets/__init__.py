"""One file per way to answer all rules fast; each gives the answers of :mod:`rules_engine.rules.evaluate`."""
