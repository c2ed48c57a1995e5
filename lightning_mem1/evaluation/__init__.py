"""Episodes outside of training, their measures, intervals and tables. Touches rollouts."""
