"""A file on its way through: audio that is read once, piece by piece, never whole in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

CHUNK = 256 * 1024


def _nothing() -> Mapping[str, Any]:
    return {}


@dataclass(slots=True)
class Upload:
    """A file: its name, media type, size in bytes if known, and its content.

    again: whether `chunks` may be called a second time, for another attempt. after: the members of
    the request that came behind the file; to be asked once `chunks` has come to its end.
    """

    filename: str
    media_type: str
    size: int | None
    again: bool
    _open: Callable[[], AsyncIterator[bytes]]
    after: Callable[[], Mapping[str, Any]] = _nothing
    _begun: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether all of it can still be read: it can be read again, or nobody has begun to."""
        return self.again or not self._begun

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
        after: Callable[[], Mapping[str, Any]] = _nothing,
    ) -> Upload:
        """A file that is still arriving; it can be read once."""
        return cls(filename, media_type, size, False, lambda: content, after)

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
        self._begun = True
        return self._open()
