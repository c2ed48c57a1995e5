"""Environments: single-use worlds that answer actions with text."""
