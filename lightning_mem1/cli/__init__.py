"""The command `mem1`: fit, evaluate, play, export, warmstart, serve and others. Touches every room."""
