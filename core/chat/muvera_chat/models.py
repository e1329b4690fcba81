"""Makes a chat model from its name, such as "ollama:llama3.2"."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel

from muvera_core.errors import InvalidInputError, MissingExtraError

_EXAMPLES = "ollama:llama3.2, openai:gpt-4o-mini or anthropic:claude-haiku-4-5"


def load_model(name: str, *, base_url: str | None = None) -> BaseChatModel:
    """Make a chat model with LangChain's ``init_chat_model``.

    Args:
        name: provider and model, such as "ollama:llama3.2".
        base_url: address of the provider's service, if it is not the usual one.

    Raises:
        InvalidInputError: the name has no provider, the provider is unknown, or it refuses: a key is missing, say.
        MissingExtraError: ``langchain``, or the provider's package, is not installed.
    """
    provider, colon, model = name.partition(":")
    if not (colon and provider and model):
        raise InvalidInputError(f"--model must be PROVIDER:MODEL, such as {_EXAMPLES}, got {name!r}")
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        package = provider.replace("_", "-")
        raise MissingExtraError(f"--model needs LangChain: pip install langchain langchain-{package}") from error
    options: dict[str, Any] = {} if base_url is None else {"base_url": base_url}
    try:
        made = init_chat_model(model, model_provider=provider, **options)
    except ImportError as error:
        raise MissingExtraError(f"the model {name} needs another package: {error}") from error
    except Exception as error:  # each provider raises its own
        raise InvalidInputError(f"the model {name} cannot be used: {_first_line(error)}") from error
    if not isinstance(made, BaseChatModel):
        raise InvalidInputError(f"{name} is no chat model, got {type(made).__name__}")
    return made


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:400]}"
