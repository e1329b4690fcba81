"""The command ``muvera export-onnx``, which makes a model that runs without PyTorch."""

from __future__ import annotations

from pathlib import Path

import click

from muvera_core import encoders
from muvera_core.cli.group import Failure, say


@click.command("export-onnx")
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--int8", is_flag=True, help="Round the weights: a quarter of the size, about twice as fast.")
@click.option("--allow-download", is_flag=True, help="Let MODEL be a name on the Hugging Face hub.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that the model brings.")
@click.option("--revision", help="The version of a model on the hub.")
def export_onnx(
    model: str, folder: Path, int8: bool, allow_download: bool, trust_remote_code: bool, revision: str | None
) -> None:
    """Make FOLDER, which runs without PyTorch, from a late-interaction model of sentence-transformers or PyLate.

    The vectors of sample texts are compared with the original's. If they are not equal, nothing is left in FOLDER.
    Needs muvera-core[sentence-transformers], and muvera-core[export] for --int8.
    """
    if not allow_download and not Path(model).is_dir():
        raise Failure(
            f"{model} is not a folder: name the folder of a model, or pass --allow-download to fetch it from the "
            "Hugging Face hub by its name"
        )
    say(f"exporting {model} ...")
    report = encoders.export_onnx(
        model,
        folder,
        int8=int8,
        allow_download=allow_download,
        trust_remote_code=trust_remote_code,
        revision=revision,
    )
    click.echo(f"{report.folder}: {report.model_file}, {report.n_bytes / 1e6:.1f} MB")
    click.echo(
        f"{report.n_vectors} vectors of sample texts: components differ from the original's by at most "
        f"{report.largest_difference:.1e}, the lowest cosine is {report.lowest_cosine:.4f}"
    )
    opens = "opens the same indexes as the original" if report.is_original else "needs an index of its own"
    click.echo(f"OnnxEncoder({str(report.folder)!r}) {opens}")
