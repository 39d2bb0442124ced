"""The trigger document, and the consents and sinks of the project document.

Begin with ``nodes.py`` and ``parse.py``.
"""
