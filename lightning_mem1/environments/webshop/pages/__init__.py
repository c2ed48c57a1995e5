"""What the agent and a person see: the compact text, the reference text, and HTML."""
