"""Products made from a seed: names, prose, pages like those of the official files."""
