"""Demonstrations of one's own task: of a scripted expert, of a file, of a teacher behind an endpoint."""
