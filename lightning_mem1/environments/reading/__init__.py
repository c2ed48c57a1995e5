"""Long documents that arrive part by part: the agent keeps a memory, reads on, and answers."""
