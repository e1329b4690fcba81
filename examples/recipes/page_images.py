"""Index images of pages, ask a question in words, and draw what matched over the page.

    python examples/recipes/page_images.py MODEL [PAGE ...] [--question TEXT] [--index FOLDER] [--heat-map FILE]

MODEL is the folder of a sentence-transformers model that embeds page images, such as ColPali, ColQwen or
ColModernVBERT. Without PAGEs, the script draws three. It needs muvera-core[sentence-transformers,images,pooling].
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from muvera_core import MuveraIndex
from muvera_core.encoders import ImageEncoder, SentenceTransformerEncoder

DRAWN = {
    "owls": "Owls\n\nOwls hunt at night. Their feathers\nmake almost no sound in flight.",
    "bread": "Rye bread\n\nRye bread keeps for longer than\nwhite bread, because it holds water.",
    "tides": "Tides\n\nThe moon pulls the sea. Most coasts\nhave two high tides a day.",
}
QUESTION = "Which bird is active after dark?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("pages", type=Path, nargs="*", metavar="PAGE")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--index", type=Path, help="folder for the index (default: a temporary folder)")
    parser.add_argument("--heat-map", type=Path, help="file for the heat map of the best page, such as map.png")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        pages = arguments.pages or draw_pages(Path(temporary))
        folder = arguments.index or Path(temporary) / "pages.muvera"
        ask(SentenceTransformerEncoder(arguments.model), folder, pages, arguments.question, arguments.heat_map)


def draw_pages(folder: Path) -> list[Path]:
    """Draw the pages and save them."""
    pages = []
    for name, text in DRAWN.items():
        page = Image.new("RGB", (620, 800), "white")
        ImageDraw.Draw(page).multiline_text((50, 60), text, fill="black", font=ImageFont.load_default(30), spacing=12)
        pages.append(folder / f"{name}.png")
        page.save(pages[-1])
    return pages


def ask(encoder: ImageEncoder, folder: Path, pages: list[Path], question: str, heat_map: Path | None) -> None:
    """Index the pages, and print the best ones and what matched on the first."""
    with MuveraIndex.open_or_create(folder, encoder, pool_factor=3) as index:
        # What the index has already is not encoded again.
        index.add_images(pages, ids=[page.name for page in pages], show_progress=True)
        print(f"{len(index)} pages, {index.n_tokens / len(index):.0f} vectors a page")
        print(f"Question: {question}")
        hits = index.search(question, k=3)
        for hit in hits:
            print(f"  {hit.normalized_score:.2f} {hit.id}: {hit.image}")
        print(f"What matched on {hits[0].id}:")
        for match in index.explain(question, hits[0].id):
            if match.query_token.strip() and match.patch is not None:
                print(
                    f"  {match.query_token!r}: row {match.patch[0]}, column {match.patch[1]} ({match.similarity:.2f})"
                )
        if heat_map is not None:
            index.heat_map(question, hits[0].id).save(heat_map)
            print(f"Heat map: {heat_map}")


if __name__ == "__main__":
    main()
