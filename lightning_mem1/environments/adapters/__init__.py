"""Environments of other packages as task sources: Gymnasium, OpenEnv, verifiers and TextArena, each an extra."""
