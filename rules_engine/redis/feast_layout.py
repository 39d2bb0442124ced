"""Compute the keys and fields of Feast's Redis store: one hash for each entity, one field for each feature.

See ``feast/infra/online_stores/redis.py`` and ``feast/infra/key_encoding_utils.py``; a contract test compares
this module with them.
"""

from __future__ import annotations

from struct import pack

#: The number of a string in Feast's ``ValueType``.
_STRING = 2


class KeyMaker:
    r"""Makes the key of an entity whose only join key is a string.

    >>> KeyMaker("shop", "user", 3)("42")
    b'\x01\x00\x00\x00\x02\x00\x00\x00\x04\x00\x00\x00user\x02\x00\x00\x00\x02\x00\x00\x0042shop'
    """

    __slots__ = ("_prefix", "suffix")

    def __init__(self, project: str, join_key: str, version: int) -> None:
        self._prefix = key_prefix(join_key, version) + pack("<I", _STRING)
        self.suffix = project.encode()

    def __call__(self, entity: str) -> bytes:
        value = encoded(entity)
        return self.before(len(value)) + value + self.suffix

    def entity(self, key: bytes) -> str | None:
        """Return the entity of a key; None if the key is not one of this project.

        >>> key = KeyMaker("shop", "user", 3)
        >>> key.entity(key("42")), key.entity(b"something else"), key.entity(KeyMaker("myshop", "user", 3)("42"))
        ('42', None, None)
        """
        start = len(self._prefix) + 4
        value = key[start : len(key) - len(self.suffix)]
        if key[:start] != self.before(len(value)) or key[start:] != value + self.suffix:
            return None
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None

    def before(self, length: int) -> bytes:
        """Return the bytes of a key before the entity, which takes ``length`` bytes."""
        return self._prefix + pack("<I", length)


def sibling_key(key: bytes, name: bytes) -> bytes:
    """Return the key of something else that is kept of the entity of a row; in a cluster it lies in the same slot.

    >>> sibling_key(b"user42shop", b"events:1")
    b'{user42shop}:events:1'
    """
    return b"{%b}:%b" % (key, name)


def project_key(project: str, name: str) -> bytes:
    """Give the key of something that a project has once: all of them lie in one slot.

    >>> project_key("shop", "refused")
    b'segments:{shop}:refused'
    """
    return f"segments:{{{project}}}:{name}".encode()


def encoded(entity: str) -> bytes:
    """Return an entity as it lies in its key.

    A string that is not valid Unicode is nobody's key; encoding it all the same finds nobody.
    """
    return entity.encode("utf-8", "surrogatepass")


def key_prefix(join_key: str, version: int) -> bytes:
    """Return what all keys of an entity begin with. Version 3 put a count and a length in; 2 and older have neither."""
    name = join_key.encode()
    if version >= 3:
        return pack("<3I", 1, _STRING, len(name)) + name
    return pack("<I", _STRING) + name


def field_bytes(number: int) -> bytes:
    """Return the hash field for a feature's number in the read plan."""
    return pack("<I", number)


def field_number(stored_view: str, feature: str) -> int:
    """Return the number of the hash field that holds a feature: a hash of 32 bits, so two features can share one."""
    import mmh3  # only `apply` computes fields: the read plan carries them

    return mmh3.hash(f"{stored_view}:{feature}", signed=False)
