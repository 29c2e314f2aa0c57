"""All mutants, from the table modules."""

from __future__ import annotations

from typing import Final

from tests.mutants import calls, codec, errors, faces, rules, streams
from tests.mutants.mutant import Mutant

MUTANTS: Final[tuple[Mutant, ...]] = (
    *streams.MUTANTS,
    *calls.MUTANTS,
    *codec.MUTANTS,
    *errors.MUTANTS,
    *faces.MUTANTS,
    *rules.MUTANTS,
)
