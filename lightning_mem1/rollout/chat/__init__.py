"""A trained agent as chat completions: its clients send the newest message, the server keeps the constant context."""
