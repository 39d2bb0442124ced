"""Names of events and properties as senders spell them, and as they are declared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

#: A longer name cannot be declared.
_LONGEST = 63

_WORD_ENDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_BETWEEN_WORDS = re.compile(r"[^A-Za-z0-9]+")


def snake_case(name: str) -> str:
    """Return a name in small letters with an underscore between words. What is too long to be declared stays as it is.

    >>> [snake_case(name) for name in ("Product Viewed", "productViewed", "cart: SKUList", "order_id")]
    ['product_viewed', 'product_viewed', 'cart_sku_list', 'order_id']
    """
    return _snake_case(name) if len(name) <= _LONGEST else name


@lru_cache(maxsize=4096)
def _snake_case(name: str) -> str:
    words = _BETWEEN_WORDS.sub("_", _WORD_ENDS.sub("_", name))
    return words.strip("_").lower() or name


def declared_names(values: Mapping[str, object], declared: Iterable[str]) -> dict[str, object]:
    """Return values by their declared names: the same name first, else the one that the name is in small letters.

    Whatever has no declared name keeps its own, and so does what would take the place of another.

    >>> declared_names({"productId": "A1", "Price": 5, "price": 6, "url": "/"}, ["product_id", "price"])
    {'product_id': 'A1', 'Price': 5, 'price': 6, 'url': '/'}
    """
    targets = set(declared)
    if targets.issuperset(values):
        return dict(values)
    named: dict[str, object] = {}
    for name, value in values.items():
        spelled = name if name in targets else snake_case(name)
        is_free = spelled == name or (spelled not in values and spelled not in named)
        named[spelled if spelled in targets and is_free else name] = value
    return named
