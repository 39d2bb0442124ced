"""Reports: one HTML file with everything in it, to be mailed, archived and opened anywhere.

:mod:`page` builds the file out of sections, tables and pictures; :mod:`pictures` draws. The clusters' report and the
models' reports are made of these.
"""
