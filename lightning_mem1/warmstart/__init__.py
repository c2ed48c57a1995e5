"""Cloning of demonstrations into a policy, before RL. Touches training."""
