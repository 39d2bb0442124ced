"""Files as their names say that they are compressed."""

from __future__ import annotations

import gzip

import pyarrow as pa


def pack(name: str, data: bytes) -> bytes:
    """Compress what the ending of a file's name says is compressed."""
    if name.endswith(".gz"):
        return gzip.compress(data, compresslevel=1, mtime=0)
    return bytes(pa.Codec("zstd").compress(data, asbytes=True)) if name.endswith(".zst") else data
