"""The search of the shop: analysis, postings and ranking like the reference implementation."""
