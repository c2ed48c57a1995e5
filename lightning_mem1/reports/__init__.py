"""Reports: what many trajectories say together, on screen and on disk."""
