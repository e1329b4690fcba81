"""Lets PyTorch compute in the forked children of a process in which it has computed."""

from __future__ import annotations

import os
from functools import cache


@cache
def allow_forks() -> None:
    """Let forked children compute with one thread, as PyTorch's own DataLoader does. Call it before the first model.

    A fork copies no threads, so OpenMP would wait in the child for threads that do not exist.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_use_one_thread)


def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)
