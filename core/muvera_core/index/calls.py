"""All calls of an index, and how it is closed."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, NoReturn, Self

from muvera_core.errors import MuveraError
from muvera_core.index.measuring import MeasuringCalls
from muvera_core.index.writing import WritingCalls
from muvera_core.validation import counted


class IndexCalls(WritingCalls, MeasuringCalls):
    """The calls that every index has, wherever its documents are: in this process, in several, or behind a service."""

    def close(self) -> None:
        """Save stage one, which makes the next opening fast, and release the folder. Documents are safe without it.

        A search that is running in another thread ends with its result or with IndexClosedError.
        """
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise MuveraError(
            "an index cannot be pickled: it holds open files and a lock. Pass its path and open it there, "
            "with read_only=True"
        )

    def __repr__(self) -> str:
        place = "in memory" if self.path is None else repr(str(self.path))
        content = counted(len(self), "document") if self._engine.is_open else "closed"
        return f"<{type(self).__name__} {place}: {content}>"


async def call_async(index: IndexCalls, name: str, /, *arguments: Any, **options: Any) -> Any:
    """Make a call of an index without blocking the event loop.

    An index that can wait asynchronously, such as a client of a service, has a method ``acall`` for it. Others make the
    call in a thread.

    Args:
        index: any index.
        name: name of one of its methods, such as "search".
        *arguments: of the method.
        **options: of the method.
    """
    acall = getattr(index, "acall", None)
    if acall is not None:
        return await acall(name, *arguments, **options)
    return await asyncio.to_thread(getattr(index, name), *arguments, **options)
