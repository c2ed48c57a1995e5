"""Engines: batched generation of turns."""
