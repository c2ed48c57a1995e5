"""Retrievers: BM25 and dense indexes, a remote server and the web, all behind `passage.Retriever`."""
