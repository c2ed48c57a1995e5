"""Agents of somebody else's: an OpenAI-compatible endpoint in front of an engine, and episodes that call it."""
