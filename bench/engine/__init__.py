"""The bench of the engine: calls, limits, practice steps and resumes beside other clients."""
