"""Reranking, the scan for candidates and set encoding on a CUDA GPU, imported only when an index asks for a GPU."""
