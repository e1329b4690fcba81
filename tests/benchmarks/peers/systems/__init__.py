"""One system per file. A file imports its package at the top, so it is imported only where that package is measured."""
