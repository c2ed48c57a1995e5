"""Memory modes trained and evaluated alike: what is run, what is kept of it, and the table that comes out."""
