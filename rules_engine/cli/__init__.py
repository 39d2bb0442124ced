"""The command ``segments``: one module for each noun, thin over the library.

Parses options, calls one function of a package below, and prints what it returned. Begin with ``main.py`` and
``commands.py``, the table of all commands. May import every package below; nothing imports it.
"""
