"""The commands that describe, check, repair and compact an index."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

import click

from muvera_core.cli.options import AS_JSON, ENCODER, ENCODER_DEVICE, INDEX, load_encoder
from muvera_core.cli.output import info_as_text, size_as_text
from muvera_core.collection import Writer, open_collection
from muvera_core.maintenance import check_index, read_info, repair_index


@click.command()
@INDEX
@AS_JSON
def info(folder: Path, as_json: bool) -> None:
    """Print the contents, the settings and the file sizes of INDEX."""
    found = read_info(folder)
    click.echo(json.dumps(found.as_json(), ensure_ascii=False) if as_json else info_as_text(found))


@click.command()
@INDEX
@click.pass_context
def check(ctx: click.Context, folder: Path) -> None:
    """Read all of INDEX and list any damage. The exit status is 1 if there is damage."""
    report = check_index(folder)
    click.echo(str(report))
    ctx.exit(0 if report.ok else 1)


@click.command()
@INDEX
@ENCODER
@ENCODER_DEVICE
def repair(folder: Path, checkpoint: Path | None, encoder_device: str | None) -> None:
    """Repair a damaged INDEX.

    What cannot be recovered is moved to a folder inside INDEX.
    """
    click.echo(str(repair_index(folder, load_encoder(checkpoint, folder, encoder_device))))


@click.command()
@INDEX
def compact(folder: Path) -> None:
    """Free the disk space of deleted documents."""
    # Compaction encodes no text, so it needs no encoder.
    with closing(open_collection(folder.absolute(), show_progress=sys.stderr.isatty())) as collection:
        freed = Writer(collection).compact()
    click.echo(f"{size_as_text(max(0, freed))} freed")
