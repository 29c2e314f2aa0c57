"""Which provider answers: names to models, models to routes. It is handed adapters, never makes one."""
