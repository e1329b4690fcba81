"""Exact MaxSim and set encoding on a CUDA card, with CuPy. Nothing here is imported before a device is asked for."""
