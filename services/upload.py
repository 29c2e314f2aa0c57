"""A file on its way through: audio that is read once, piece by piece, never whole in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

CHUNK = 256 * 1024


@dataclass(slots=True)
class Upload:
    """A file: its name, media type, size in bytes if known, and its content.

    `again` tells whether `chunks` may be called a second time, for another attempt.
    """

    filename: str
    media_type: str
    size: int | None
    again: bool
    _open: Callable[[], AsyncIterator[bytes]]

    @classmethod
    def of(cls, data: bytes, filename: str = "", media_type: str = "") -> Upload:
        """A file whose content is at hand."""

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(data), CHUNK):
                yield data[start : start + CHUNK]

        return cls(filename, media_type, len(data), True, pieces)

    @classmethod
    def stream(
        cls,
        content: AsyncIterator[bytes],
        filename: str = "",
        media_type: str = "",
        size: int | None = None,
    ) -> Upload:
        """A file that is still arriving; it can be read once."""
        return cls(filename, media_type, size, False, lambda: content)

    @classmethod
    def spooled(
        cls,
        opened: Callable[[], AsyncIterator[bytes]],
        filename: str,
        media_type: str,
        size: int,
    ) -> Upload:
        """A file that lies somewhere; `opened` starts reading it from the beginning."""
        return cls(filename, media_type, size, True, opened)

    def chunks(self) -> AsyncIterator[bytes]:
        """The content, piece by piece."""
        return self._open()
