"""Which provider answers: names to models, models to routes. Handed adapters, it makes none."""
