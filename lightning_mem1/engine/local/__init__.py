"""Batched generation in this process, with a fixed pool of slots."""
