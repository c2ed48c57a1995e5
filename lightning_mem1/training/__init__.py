"""Trajectories -> one update: layouts, credit, losses, and `Mem1Module`. Touches policies, contexts and engines."""
