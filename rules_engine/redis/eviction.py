"""Check that a server evicts no keys when its memory is full: an evicted entity would look like an unknown one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from rules_engine.errors import ProjectError
from rules_engine.redis.server import RedisServer

#: What is asked of a server. Not ``CONFIG GET``, which many hosts forbid.
ASK_MEMORY = ("INFO", "memory")

_log = logging.getLogger("rules_engine.store")

_SAFE = "noeviction"
#: What to do about a server that evicts.
HINT = f"set `maxmemory-policy {_SAFE}` on the server (and enough `maxmemory`)"


def eviction_trouble(policy: str | None, address: object) -> str | None:
    """Say what is wrong with a server's eviction policy; None if nothing is.

    Parameters
    ----------
    policy
        from :func:`policy_in`.
    address
        of the server, for the message.

    Examples
    --------
    >>> eviction_trouble("noeviction", "cache:6379") is None
    True
    >>> print(eviction_trouble("allkeys-lru", "cache:6379"))
    the online store at cache:6379 evicts keys when its memory is full (maxmemory-policy allkeys-lru): ...
    """
    if policy == _SAFE:
        return None
    if policy is None:
        return (
            f"the online store at {address} does not say what it does when its memory is full (INFO memory is refused "
            "or has no maxmemory_policy), so it is not known whether it evicts keys"
        )
    return (
        f"the online store at {address} evicts keys when its memory is full (maxmemory-policy {policy}): whoever is "
        "evicted looks like somebody who never did anything"
    )


def policy_in(info: object) -> str | None:
    r"""Take the eviction policy out of an answer to :data:`ASK_MEMORY`; None if it is not in there.

    >>> policy_in(b"used_memory:1\r\nmaxmemory_policy:volatile-lru\r\n"), policy_in(Exception("NOPERM"))
    ('volatile-lru', None)
    """
    if isinstance(info, Mapping):
        named = info.get("maxmemory_policy")
        return None if named is None else str(named)
    if not isinstance(info, bytes):
        return None
    lines = (line.partition(b":") for line in info.splitlines())
    return next((value.strip().decode() for name, _, value in lines if name == b"maxmemory_policy"), None)


def check_eviction(server: RedisServer) -> None:
    """Refuse a server that evicts keys; warn of one that does not tell its policy.

    Raises
    ------
    ProjectError
        if it evicts keys.
    StoreError
        if it does not answer.
    """
    policy = worst_policy(server)
    trouble = eviction_trouble(policy, server.address)
    if policy is None:
        _log.warning("%s; %s", trouble, HINT)
    elif trouble is not None:
        raise ProjectError(trouble, hint=HINT)


def worst_policy(server: RedisServer) -> str | None:
    """Ask every server that holds keys, those of a cluster too, what it does when its memory is full.

    Returns
    -------
    str or None
        a policy that evicts, if one server has such; None if one does not say; else ``noeviction``.

    Raises
    ------
    StoreError
        if a server does not answer.
    """
    policies = server.do(lambda: _policies(server))
    evicting = [policy for policy in policies if policy not in (_SAFE, None)]
    return evicting[0] if evicting else None if None in policies else _SAFE


def _policies(server: RedisServer) -> list[str | None]:
    import redis

    client = server.client()
    try:
        if isinstance(client, redis.RedisCluster):
            of_nodes: Any = client.info("memory", target_nodes=redis.RedisCluster.PRIMARIES)
            return [policy_in(info) for info in of_nodes.values()]
        return [policy_in(client.info("memory"))]
    except redis.ResponseError:  # a host may forbid the command, or have renamed it
        return [None]
    finally:
        client.close()
