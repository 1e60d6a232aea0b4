"""A forecast of what a run takes, before it starts."""
