"""What a person looks at: the trajectory page, plots, the terminal."""
