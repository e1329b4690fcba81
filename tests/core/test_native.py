from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from muvera_core import FDEConfig, FixedDimensionalEncoder, TokenEmbeddings, maxsim, native
from muvera_core.errors import InvalidInputError
from muvera_core.native import available_kernels, kernel_name, vector_kernel


@pytest.fixture(autouse=True)
def chosen_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MUVERA_KERNEL", raising=False)
    native._kernel_named.cache_clear()
    yield
    native._kernel_named.cache_clear()


@pytest.mark.parametrize("name", available_kernels())
def test_work_that_lacks_the_chosen_kernel_takes_the_next_slower_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUVERA_KERNEL", name)
    module, of_vectors = vector_kernel()
    assert kernel_name() == name
    assert available_kernels().index(of_vectors) >= available_kernels().index(name)
    assert (module is None) == (of_vectors == "numpy")


def test_an_empty_variable_chooses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUVERA_KERNEL", "")
    assert kernel_name() == available_kernels()[0]


@pytest.mark.parametrize("choose", [kernel_name, vector_kernel])
def test_an_unknown_kernel_is_refused_with_the_names_of_those_that_can_run(
    choose: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUVERA_KERNEL", "abacus")
    with pytest.raises(InvalidInputError, match=r"MUVERA_KERNEL must be one of .*numpy.*, got 'abacus'"):
        choose()  # type: ignore[operator]


def test_without_compiled_kernels_numpy_does_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = TokenEmbeddings.from_list(list(np.random.default_rng(0).standard_normal((3, 5, 128))))
    encoder = FixedDimensionalEncoder(FDEConfig())
    with_kernels = encoder.encode_documents(tokens), maxsim(tokens[0], tokens)
    monkeypatch.setattr(native, "_installed", None)
    native._kernel_named.cache_clear()
    assert available_kernels() == ["numpy"]
    assert (kernel_name(), vector_kernel()) == ("numpy", (None, "numpy"))
    np.testing.assert_allclose(encoder.encode_documents(tokens), with_kernels[0], atol=1e-5)
    np.testing.assert_allclose(maxsim(tokens[0], tokens), with_kernels[1], rtol=1e-4)
