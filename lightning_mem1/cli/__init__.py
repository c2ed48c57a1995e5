"""The commands: fit, evaluate, play, export, warmstart, serve, serve-retriever, serve-shop."""
