"""Upstreams that replay recordings and misbehave on demand."""
