"""Reports: one HTML file with everything in it, to be mailed, archived and opened anywhere.

Begin with ``page.py``, which builds the file out of sections, tables and pictures; ``pictures.py`` draws. The clusters'
report and the models' reports are made of these.
"""
