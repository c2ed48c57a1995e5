"""A scripted agent that answers questions: what the warm start clones."""
