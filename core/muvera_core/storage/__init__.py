"""Stores documents, token vectors and settings on disk, with snapshots of committed states and with locks."""

from __future__ import annotations

from muvera_core.storage.aftermath import follow_up, log_failure, warn_or_log
from muvera_core.storage.change import COPY_BATCH, AppendedTokens, Change
from muvera_core.storage.database import (
    DATABASE_NAME,
    PAGE_SIZE,
    SCHEMA_VERSION,
    check_journal,
    connect,
    connect_to_any,
    create_database,
    empty_database,
    has_index_schema,
    read_state,
    schema_version,
    undo_interrupted_commit,
    write_state,
)
from muvera_core.storage.documents import StaleError, StoredDocument
from muvera_core.storage.folder_lock import claim_folder, claim_new_folder, claimed, remove_unfinished
from muvera_core.storage.fork_guard import ForkGuard
from muvera_core.storage.learned_settings import LEARNED_NAME, LearnedSettings
from muvera_core.storage.manifest import (
    CLUSTER_NAME,
    FORMAT_VERSION,
    MANIFEST_NAME,
    Manifest,
    holds_index,
    noted_lexical,
    noted_precision,
    read_encoder,
    read_manifest,
    require_checksum,
)
from muvera_core.storage.snapshot import Snapshot
from muvera_core.storage.store import Store
from muvera_core.storage.token_codec import DEFAULT_PRECISION, PRECISIONS, Rows, TokenCodec, TokenPrecision
from muvera_core.storage.token_log import FileTokenLog, token_generations, tokens_path
from muvera_core.storage.word_reader import WordStatistics
from muvera_core.storage.words import (
    WORD_RULES,
    WORDS_SCHEMA,
    default_lexical,
    has_fts5,
    insert_words,
    require_fts5,
    rules_after,
)

__all__ = [
    "CLUSTER_NAME",
    "COPY_BATCH",
    "DATABASE_NAME",
    "DEFAULT_PRECISION",
    "FORMAT_VERSION",
    "LEARNED_NAME",
    "MANIFEST_NAME",
    "PAGE_SIZE",
    "PRECISIONS",
    "SCHEMA_VERSION",
    "WORDS_SCHEMA",
    "WORD_RULES",
    "AppendedTokens",
    "Change",
    "FileTokenLog",
    "ForkGuard",
    "LearnedSettings",
    "Manifest",
    "Rows",
    "Snapshot",
    "StaleError",
    "Store",
    "StoredDocument",
    "TokenCodec",
    "TokenPrecision",
    "WordStatistics",
    "check_journal",
    "claim_folder",
    "claim_new_folder",
    "claimed",
    "connect",
    "connect_to_any",
    "create_database",
    "default_lexical",
    "empty_database",
    "follow_up",
    "has_fts5",
    "has_index_schema",
    "holds_index",
    "insert_words",
    "log_failure",
    "noted_lexical",
    "noted_precision",
    "read_encoder",
    "read_manifest",
    "read_state",
    "remove_unfinished",
    "require_checksum",
    "require_fts5",
    "rules_after",
    "schema_version",
    "token_generations",
    "tokens_path",
    "undo_interrupted_commit",
    "warn_or_log",
    "write_state",
]
