"""The model: loading, adapters, attention, log-probabilities, the critic. Touches transformers and peft."""
