"""Retrievers: BM25, dense, a remote server, the web; and a server of our own."""
