"""Proof that the tests bite: each mutant takes one mechanism out, and named tests must then fail.

`make mutants` runs them all, `make mutants ARGS="G4 sse"` those of a guarantee or with that in
their name. Add yours in the same change as the mechanism and its test: one `Mutant` in the table
module (`streams`, `calls`, `admission`, `routing`, `operations`, `codec`, `errors`, `faces`,
`rules`) that its mechanism belongs to:

    Mutant(
        "done-proves-success", "G4", "services/upstream/states.py",
        find="...",         # occurs exactly once in the file; more lines make it unique
        replace="...",      # still valid Python: the mechanism gone, nothing else broken
        tests=("tests/unit/test_upstream_stream.py::test_done_without_a_finish_is_truncated",),
        why="what a user would meet",
    )

A guarantee is "G4" or, where it has no number, a rule's name. Every test named must fail, by an
assertion of its own: a file that no longer imports is a fault of the mutant,
and tests that hang for 75 s count as failed. Name few tests, and
fast ones: `::test[parameter]` where one has many cases. The mutant is applied in a copy of the
tree, where the same tests have passed before. tests/unit/test_mutants.py, part of `make test`,
finds mutants that no longer fit their file or name a test that is gone.
"""
