"""A spool is there to keep files out of memory."""

from __future__ import annotations

import tracemalloc

from gateway_http.spool import MEMORY, Spool

PIECE = 64 * 1024


async def test_a_large_file_is_not_held_in_memory() -> None:
    """G34: what is held is bounded, however large the file is."""
    spool = Spool()
    tracemalloc.start()
    try:
        for number in range(16 * MEMORY // PIECE):
            await spool.write(number.to_bytes(2, "big") * (PIECE // 2))
        await spool.end()
        size = 0
        async for piece in spool.chunks():
            size += len(piece)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        spool.close()
    assert size == spool.size == 16 * MEMORY
    assert most < 5 * MEMORY
