"""All mutants, from the table modules."""

from __future__ import annotations

from typing import Final

from tests.mutants import (
    admission,
    audio,
    calls,
    codec,
    errors,
    faces,
    operations,
    routing,
    rules,
    streams,
)
from tests.mutants.mutant import Mutant

MUTANTS: Final[tuple[Mutant, ...]] = (
    *streams.MUTANTS,
    *calls.MUTANTS,
    *admission.MUTANTS,
    *routing.MUTANTS,
    *operations.MUTANTS,
    *audio.MUTANTS,
    *codec.MUTANTS,
    *errors.MUTANTS,
    *faces.MUTANTS,
    *rules.MUTANTS,
)
