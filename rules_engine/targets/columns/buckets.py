"""Buckets of whole columns: what :mod:`rules_engine.rules.buckets` says of one unit, for an Arrow column at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rules_engine.rules.buckets import BUCKETS, PRIME, START, bucket, code_units, fnv1a

_Hashes = npt.NDArray[np.uint32]

_PRIME = np.uint32(PRIME)


def bucket_column(seed: str, units: pa.Array, version: int = 2) -> npt.NDArray[np.int64]:
    """Return the bucket of each unit; of a null that of the empty text.

    Parameters
    ----------
    seed, version
        as :func:`rules_engine.rules.buckets.bucket` takes them.
    units
        strings, or whole numbers, which are hashed as their decimal text.

    Raises
    ------
    ValueError
        if there is no such version of the hash.

    Examples
    --------
    >>> bucket_column("seed", pa.array(["a", "b"])).tolist()
    [505, 2696]
    """
    texts = units.cast(pa.large_string()).fill_null("")
    is_ascii = pc.string_is_ascii(texts)
    buckets = np.full(len(texts), bucket(seed, "", version))
    if is_ascii.true_count == len(texts):
        buckets[:] = _ascii_buckets(seed, texts, version)
        return buckets
    flags = is_ascii.to_numpy(zero_copy_only=False)
    buckets[flags] = _ascii_buckets(seed, texts.filter(is_ascii), version)
    buckets[~flags] = [bucket(seed, unit, version) for unit in texts.filter(pc.invert(is_ascii)).to_pylist()]
    return buckets


def _ascii_buckets(seed: str, texts: pa.LargeStringArray, version: int) -> _Hashes:
    if version == 1:
        hashes = _hashes(texts, START)
        for unit in code_units(seed):
            hashes = (hashes ^ np.uint32(unit)) * _PRIME
    else:
        hashes = _hashes_of_decimals(_hashes(texts, fnv1a(seed)))
    return hashes % np.uint32(BUCKETS[version])


def _hashes(texts: pa.LargeStringArray, state: int) -> _Hashes:
    """Return the FNV-1a hashes of ASCII texts: a step for each place, over those texts that are so long."""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    lengths = np.diff(ends)
    longest_first = np.argsort(-lengths, kind="stable")
    starts, shortness = ends[:-1][longest_first], -lengths[longest_first]
    units = np.frombuffer(data or b"", dtype=np.uint8)
    hashes = np.full(len(texts), state, dtype=np.uint32)
    for place in range(lengths.max(initial=0)):
        count = int(np.searchsorted(shortness, -place))
        hashes[:count] = (hashes[:count] ^ units[starts[:count] + place]) * _PRIME
    ordered = np.empty_like(hashes)
    ordered[longest_first] = hashes
    return ordered


def _hashes_of_decimals(numbers: _Hashes) -> _Hashes:
    """Return the FNV-1a hashes of the decimal texts of numbers."""
    hashes = np.full(len(numbers), START, dtype=np.uint32)
    for exponent in range(9, -1, -1):
        power = np.uint32(10**exponent)
        digits = numbers // power % np.uint32(10) + np.uint32(ord("0"))
        has_digit = (numbers >= power) | (exponent == 0)
        hashes = np.where(has_digit, (hashes ^ digits) * _PRIME, hashes)
    return hashes
