"""`make bench-core`: the Rust core beside its rivals, in the same run and on the same data."""
