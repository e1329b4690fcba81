"""An index of page images with models of the real classes and random weights: it ranks as the models themselves do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip(
    "sentence_transformers",
    minversion="6",
    reason="needs muvera-core[sentence-transformers], in an environment of its own",
)
pytest.importorskip("PIL", reason="needs muvera-core[images]")

from PIL import Image
from sentence_transformers import MultiVectorEncoder
from small_models import quietly
from small_vision_models import SAVERS

from muvera_core import MuveraIndex
from muvera_core.cli import main
from muvera_core.encoders import SentenceTransformerEncoder, is_image_encoder

ROOT = Path(__file__).parents[2]
QUESTIONS = ["what does the owl hunt", "fish", "naïve 🦉?"]
N_PAGES = 8


@pytest.fixture(scope="session", params=SAVERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each kind."""
    return Path(quietly(SAVERS[request.param], tmp_path_factory.mktemp("vision") / request.param))


@pytest.fixture(scope="session")
def encoder(folder: Path) -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(folder, device="cpu")


@pytest.fixture(scope="session")
def model(folder: Path) -> MultiVectorEncoder:
    return quietly(MultiVectorEncoder, str(folder), device="cpu", local_files_only=True)


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of pages of several sizes: blocks of colours."""
    folder = tmp_path_factory.mktemp("pages")
    paths = []
    for number in range(N_PAGES):
        rng = np.random.default_rng(number)
        blocks = Image.fromarray(rng.integers(0, 255, (4, 3, 3), dtype=np.uint8))
        paths.append(folder / f"{number}.png")
        blocks.resize((40 + 8 * (number % 3), 64), Image.Resampling.NEAREST).save(paths[-1])
    return paths


def open_page(page: Path) -> Image.Image:
    with Image.open(page) as image:
        return image.convert("RGB")


def own_scores(model: MultiVectorEncoder, question: str, pages: list[Path]) -> tuple[np.ndarray, list[Any], Any]:
    """The model's own MaxSim of a question with each page, the pages' vectors and the question's."""
    documents = model.encode_document([open_page(page) for page in pages], convert_to_numpy=True)
    query = model.encode_query([question], convert_to_numpy=True)[0]
    return np.array([(query @ each.T).max(axis=1).sum() for each in documents]), list(documents), query


@pytest.mark.parametrize("question", QUESTIONS)
def test_hits_are_in_the_models_own_order(
    question: str, encoder: SentenceTransformerEncoder, model: MultiVectorEncoder, pages: list[Path]
) -> None:
    assert is_image_encoder(encoder)
    ids = [page.name for page in pages]
    scores, _, _ = own_scores(model, question, pages)
    with MuveraIndex.create(None, encoder, token_precision="float16") as index:
        index.add_images(pages, ids=ids, batch_size=5)
        for hits in (index.search(question, k=N_PAGES), index.search(question, k=N_PAGES, exact=True)):
            np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1], rtol=2e-3)
            found = [scores[ids.index(hit.id)] for hit in hits]
            np.testing.assert_allclose(found, np.sort(scores)[::-1], rtol=2e-3)
            assert [hit.image for hit in hits] == [str(pages[ids.index(hit.id)]) for hit in hits]


def test_the_patch_that_explain_names_is_the_models_own_best(
    encoder: SentenceTransformerEncoder, model: MultiVectorEncoder, pages: list[Path]
) -> None:
    question = QUESTIONS[0]
    _, documents, query = own_scores(model, question, pages)
    with MuveraIndex.create(None, encoder, token_precision="float16") as index:
        index.add_images(pages, ids=[page.name for page in pages])
        for page, vectors in zip(pages, documents, strict=True):
            size = open_page(page).size
            patches = encoder.image_patches(*size)
            matches = index.explain(question, page.name)
            maps = index.similarity_maps(question, page.name)
            assert len(matches) == len(query) == len(maps)
            for match, similarities, drawn in zip(matches, query @ vectors.T, maps, strict=True):
                assert match.similarity == pytest.approx(similarities.max(), abs=2e-3)
                place = (-1, -1) if match.patch is None else match.patch
                there = (patches == place).all(axis=1)
                assert similarities[there].max() == pytest.approx(similarities.max(), abs=4e-3)
                if match.patch is not None:
                    assert drawn[match.patch] == pytest.approx(match.similarity, abs=1e-5)
            assert index.heat_map(question, page.name).size == size


def test_pages_are_pooled_and_explained(encoder: SentenceTransformerEncoder, pages: list[Path]) -> None:
    with MuveraIndex.create(None, encoder, pool_factor=3) as index:
        index.add_images(pages, ids=[page.name for page in pages])
        vectors = encoder.encode_images([open_page(pages[0])])[0]
        assert len(index.get_embeddings(pages[0].name)[pages[0].name]) < len(vectors) / 2
        patches = encoder.image_patches(*open_page(pages[0]).size)
        is_patch = (patches >= 0).all(axis=1)
        query = encoder.encode_queries([QUESTIONS[0]])[0]
        maps = index.similarity_maps(QUESTIONS[0], pages[0].name)
        assert maps.shape == (len(query), *(patches.max(axis=0) + 1))
        for place, vector in zip(patches[is_patch], vectors[is_patch], strict=True):
            assert (maps[:, place[0], place[1]] >= query @ vector - 1e-5).all()  # a place can have two vectors
        places = {tuple(place) for place in patches.tolist()}
        assert {match.patch or (-1, -1) for match in index.explain(QUESTIONS[0], pages[0].name)} <= places


def test_pages_and_passages_share_an_index(encoder: SentenceTransformerEncoder, pages: list[Path]) -> None:
    with MuveraIndex.create(None, encoder) as index:
        index.add(["the owl hunts at night"], ids=["text"])
        index.add_images(pages[:2], ids=["a", "b"])
        hits = {hit.id: hit for hit in index.search("owl", k=3)}
        assert [hits[id].image for id in ("text", "a", "b")] == [None, str(pages[0]), str(pages[1])]
        assert any(match.document_token for match in index.explain("owl", "text"))


def test_the_example_runs_with_a_model(pages: list[Path], tmp_path: Path) -> None:
    folder = quietly(SAVERS["colqwen2"], tmp_path / "model")
    heat_map = tmp_path / "map.png"
    command = [sys.executable, str(ROOT / "examples" / "recipes" / "page_images.py"), str(folder), *map(str, pages[:3])]
    command += ["--question", "what does the owl hunt", "--heat-map", str(heat_map)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("3 pages, ")
    assert "What matched on" in result.stdout
    assert heat_map.exists()


def test_the_command_line_indexes_and_explains_pages(pages: list[Path], tmp_path: Path) -> None:
    model, index = quietly(SAVERS["colqwen2"], tmp_path / "model"), tmp_path / "i.muvera"
    runner = CliRunner()
    made = runner.invoke(main, ["index", str(index), *map(str, pages[:3]), "--encoder", str(model)])
    assert made.stdout.startswith("3 added"), made.output
    found = runner.invoke(
        main, ["search", str(index), "owl", "-k", "3", "--json", "--explain", "--encoder", str(model)]
    )
    hits = [json.loads(line) for line in found.stdout.splitlines()]
    assert {hit["image"] for hit in hits} == set(map(str, pages[:3]))
