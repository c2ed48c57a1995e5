"""Environments of other packages as task sources: Gymnasium, OpenEnv, verifiers, TextArena; each file needs its extra."""
