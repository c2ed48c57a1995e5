"""Our own completions server around a local engine."""
