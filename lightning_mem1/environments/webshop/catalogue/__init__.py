"""Products: official files read in a stream, their saved form, ids and stock."""
