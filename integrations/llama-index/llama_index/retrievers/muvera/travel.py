"""How components travel: a pickle holds what a component was made from, so that its copy works alike.

LlamaIndex pickles the transformations of an ``IngestionPipeline`` that runs in several processes. Its base class drops
what cannot be pickled, and makes the rest again with default settings. That would silently exchange the encoder.
"""

from __future__ import annotations

import pickle
from typing import Any

from llama_index.core.bridge.pydantic import BaseModel

from muvera_core import TokenEncoder
from muvera_core.errors import InvalidInputError
from muvera_core.validation import shown


def reduced(model: BaseModel, encoder: TokenEncoder) -> tuple[Any, ...]:
    """What ``__reduce__`` of a component returns: it is made again from its settings and its encoder.

    Fields that LlamaIndex never writes, such as callback handlers, belong to the process and stay there.

    Raises:
        InvalidInputError: the encoder cannot be pickled.
    """
    try:
        pickle.dumps(encoder)
    except Exception as error:  # a foreign encoder can raise anything
        raise InvalidInputError(
            f"this {type(model).__name__} cannot be pickled, because its encoder, a {type(encoder).__name__}, cannot: "
            f"{error}. Run the pipeline without num_workers, or give the encoder a __reduce__"
        ) from error
    settings = {name: getattr(model, name) for name, field in type(model).model_fields.items() if not field.exclude}
    return remake, (type(model), {**settings, "encoder": encoder})


def remake(kind: type[BaseModel], arguments: dict[str, Any]) -> BaseModel:
    """Make a component from its arguments. Pickles name this function."""
    return kind(**arguments)


def require_fingerprint(name: str, expected: object, got: str, arguments: str) -> None:
    """Check that a component was made from what its dictionary says.

    Raises:
        InvalidInputError: the fingerprint is another one.
    """
    if expected is not None and expected != got:
        raise InvalidInputError(
            f"{name} is {shown(expected)}, but the encoder and its settings give {shown(got)}. {name} follows from "
            f"them: leave it out, or pass {arguments} as when the component was made, for example to from_dict"
        )
