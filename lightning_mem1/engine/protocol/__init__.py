"""Both sides of ``/v1/completions``: what a client asks and what a server answers."""
