"""The command `mem1`: fit, evaluate, play, export, warmstart, serve and others. Uses every package."""
