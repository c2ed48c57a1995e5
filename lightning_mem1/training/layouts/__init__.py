"""Trajectories -> tensors of one forward pass: tree and rows (exact), single copies (for comparison)."""
