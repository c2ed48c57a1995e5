"""Episodes -> trajectories: the loop, its settings, seeds, and the guards and threads around environments. Touches
engines and contexts."""
