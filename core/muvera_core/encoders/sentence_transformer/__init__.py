"""The models of sentence-transformers 6 and PyLate: loading, fingerprints, windows of long texts, spans, images."""
