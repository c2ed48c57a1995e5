"""Rows of data files in the formats people have them; what cannot be read is counted, never guessed at."""
