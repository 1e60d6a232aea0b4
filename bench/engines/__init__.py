"""The engines of the bench, one a file; each runs in a process of its own with the interpreter that has its package."""
