"""What is wanted and what a purchase is worth: instructions, rewards, matching of names."""
