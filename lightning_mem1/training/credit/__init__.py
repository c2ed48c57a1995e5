"""Rewards -> advantages of action tokens, across rewrites of the context."""
