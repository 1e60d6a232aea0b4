"""One small file an engine: each has a class `Engine` (see `bench.core.protocol`)."""
