"""How an index that was opened for reading takes in what the writer has done."""

from __future__ import annotations

from dataclasses import replace

from muvera_core.collection.collection import Collection


def refresh(collection: Collection) -> bool:
    """Take in new documents and a new tuning. Returns whether there were any."""
    collection.require_open()
    with collection.locks.writing:
        collection.require_open()
        if not collection.read_only:
            return False
        caught_up = collection.catch_up()
        return _take_in_tuning(collection) or caught_up


def _take_in_tuning(collection: Collection) -> bool:
    """Switch to the stage one that the writer has chosen since. It is made while searches use the present one.

    Returns:
        Whether the writer has chosen a new one.
    """
    source = collection.stage_one_source
    tuning = source.committed_tuning(collection.manifest)
    if tuning == collection.manifest.tuning:
        return False
    manifest, stage_one = source.load(replace(collection.manifest, tuning=tuning))
    source.bring_in_step(stage_one, collection.snapshot())
    with collection.locks.state:
        collection.require_open()
        collection.stage_one = stage_one
        collection.manifest = manifest
    collection.update_accelerator()
    return True
