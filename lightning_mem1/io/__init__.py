"""Files, HTTP and secrets: atomic writes, a bounded HTTP client, a JSON server, redaction. Knows nothing of RL."""
