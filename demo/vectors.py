"""WordLlama: texts to vectors of length one, by the mean of their tokens' vectors.

Loads from the package's own folder and cannot download. Knows no HTTP.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from demo.catalogue import DIMENSION, MAX_TOKENS

DIMENSIONS: Final = (64, 128, 256)
"""Lengths that the vectors were trained to be cut to."""

_MAX_CHARACTERS: Final = 16 * MAX_TOKENS
"""No token of the vocabulary is longer than 16 characters: longer texts have too many tokens."""

_TINY: Final = 1e-12

Vectors = NDArray[np.float32]


class TooLongError(ValueError):
    """A text has more than MAX_TOKENS tokens; `index` is its place in the list."""

    def __init__(self, index: int) -> None:
        super().__init__(f"text {index} has more than {MAX_TOKENS} tokens")
        self.index = index


@dataclass(frozen=True, slots=True)
class Embedded:
    """A row per text, and how many tokens were read in all."""

    vectors: Vectors
    tokens: int


class Embedder:
    """The model. Its methods block: they are for threads, and one runs at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._model: Any = None

    def load(self) -> None:
        """Loads the model if it is not loaded yet: half a second."""
        with self._lock:
            self._loaded()

    def embed(
        self,
        texts: Sequence[str],
        *,
        dimensions: int = DIMENSION,
        normalise: bool = True,
        truncate: bool = False,
    ) -> Embedded:
        """Vectors of the texts. Raises TooLongError for one that would have to be cut."""
        with self._lock:
            model = self._loaded()
            cut = [text[:_MAX_CHARACTERS] for text in texts]
            encoded = model.tokenizer.encode_batch(cut, add_special_tokens=False)
            vectors = np.empty((len(texts), dimensions), dtype=np.float32)
            tokens = 0
            for index, (text, one) in enumerate(zip(texts, encoded, strict=True)):
                ids = one.ids
                if len(ids) > MAX_TOKENS or len(text) > _MAX_CHARACTERS:
                    if not truncate:
                        raise TooLongError(index)
                    ids = ids[:MAX_TOKENS]
                tokens += len(ids)
                vectors[index] = model.embedding[ids, :dimensions].mean(axis=0)
        if normalise:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY)
        return Embedded(vectors, tokens)

    def _loaded(self) -> Any:
        if self._model is None:
            import wordllama

            # The package looks for its tokenizer in a folder that it does not have, and then in
            # the cache: its own folder as the cache has it under the right name.
            folder = Path(wordllama.__file__).parent
            model = wordllama.WordLlama.load(cache_dir=folder, dim=DIMENSION, disable_download=True)
            # Padding would make a long text as dear as a batch of long texts.
            model.tokenizer.no_padding()
            self._model = model
        return self._model
