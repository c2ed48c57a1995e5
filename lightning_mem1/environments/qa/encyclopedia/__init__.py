"""A generated world of people and places, its passages and its questions."""
