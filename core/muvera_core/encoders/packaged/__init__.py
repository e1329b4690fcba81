"""Encoders whose models come with a package: nothing to download, no folder to name, no PyTorch."""
