"""The client of a service: an index whose calls are made by HTTP.

call → ``Request`` → ``Connection`` sends it, again if need be → the answer becomes a result or an error
"""

from __future__ import annotations

from muvera_core.remote.index import RemoteMuveraIndex

__all__ = ["RemoteMuveraIndex"]
