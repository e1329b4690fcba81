"""Exact MaxSim and set encoding on a CUDA GPU, with CuPy. Imported only when an index asks for a GPU."""
