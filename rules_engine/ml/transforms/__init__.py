"""Ready-made features of customers, with their sources: classes of recency, frequency and money; engagement; lifetime.

They are for the scripts that build offline features: apply them to what was known at an instant, and write the result
as a row of that instant. Begin with ``scores.py``, scikit-learn transformers; ``lifetime.py`` holds two models of
buying.
"""
