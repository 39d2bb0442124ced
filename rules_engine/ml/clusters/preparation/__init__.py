"""From features to points that can be compared: transformed and scaled, without gaps, perhaps in fewer dimensions.

Begin with ``preprocessing.py``, which does all of it in order; ``filling.py`` fills gaps.
"""
