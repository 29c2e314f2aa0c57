"""Helpers of the tests: recordings, canonical equality, forms, ports and processes."""
