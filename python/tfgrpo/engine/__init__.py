"""The engine: admission, calls, groups, steps, the practice loop, evaluation, resume."""
