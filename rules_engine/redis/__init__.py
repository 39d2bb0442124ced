"""Connections to Redis and Valkey: sockets for threads and for asyncio, pipelines, and the embedded server.

Begin with ``client.py`` and ``endpoint.py``; ``feast_layout.py`` says where Feast keeps an entity's features.
"""
