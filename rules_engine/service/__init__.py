"""The service: one ASGI application over :class:`~rules_engine.sdk.AsyncSegmentClient`.

A route says its path, its role, its limits and its OpenAPI operation; ``routes.py`` does for every route what all of
them need: keys, limits, errors as JSON, logs and metrics. Begin with ``application.py``; ``ofrep.py`` is the
route that matters most. May import every package below but ``cli``; the routes that answer from the online store load
no Feast and no pandas.
"""
