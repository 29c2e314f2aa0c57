"""Benchmarks: what an operation costs in CPU microseconds, beside a reference in the same run.

`python -m bench` runs every section, `python -m bench codec` one.
"""
