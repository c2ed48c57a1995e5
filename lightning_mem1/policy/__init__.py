"""The policy: loading, adapters, attention, log-probabilities."""
