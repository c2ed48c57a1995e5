"""What the policy sees and writes: memory modes, tags, prompts, formats, and where tokens come from. Touches types
and io only."""
