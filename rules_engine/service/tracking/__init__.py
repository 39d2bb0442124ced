"""Events as other people's SDKs send them: Segment's tracking API, and CloudEvents.

``segment.py`` and ``cloudevents.py`` say what a message means to us, and know nothing of HTTP; ``routes.py`` has the
paths. Begin with ``segment.py``.
"""
