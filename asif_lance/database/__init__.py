"""Lance tables of one database, by its address: schemas, migrations, lock, versions, upkeep.

Promises: every change is one atomic commit; a reader of a version's name sees a whole state.
Assumes: whoever writes holds `WriteLock`, and checks what was read before that against the epoch
(`read_epoch`), which every forget raises. Knows nothing of encoders, models or forgetting.
Functions take an address and may be called from any thread.
"""

from asif_lance.database.attached import (
    AttachedState,
    Attachment,
    find_attachment,
    write_attachment,
)
from asif_lance.database.attached_rows import vector_width
from asif_lance.database.cache_files import (
    BYTES_KEPT,
    drop_caches,
    drop_old_caches,
    files_exist,
    load_cache,
    save_cache,
)
from asif_lance.database.checking import CheckedSurface, CheckReport, Damage, check, last_check
from asif_lance.database.cleanup import (
    RowFilter,
    clean_up,
    count_reclaimable,
    finish_deletes,
    is_draft,
    purge_rows,
)
from asif_lance.database.commits import commit, committing, update_config
from asif_lance.database.diff import (
    Changes,
    Diff,
    count_changes,
    diff_states,
    find_changes,
    rows_by_id,
)
from asif_lance.database.digests import one_line
from asif_lance.database.embedding_functions import write_functions
from asif_lance.database.encoder_pins import check_pin, read_pins, write_pins
from asif_lance.database.epoch import check_epoch, read_epoch
from asif_lance.database.fragments import (
    FragmentKey,
    content_files,
    data_files,
    live_rows_key,
    name_files,
)
from asif_lance.database.index_definitions import describe_indices, rebuild_indices
from asif_lance.database.integrity import (
    check_file,
    check_manifest,
    check_naming_tables,
    check_opened,
    keep_digests,
    record_digests,
)
from asif_lance.database.join_fragments import join_fragments, join_tiny_fragments
from asif_lance.database.known_pairs import FoundPairs, HashTable, KnownPairs, hash_ids
from asif_lance.database.lease import check_conditions, check_lease
from asif_lance.database.lock import WriteLock
from asif_lance.database.migrate import (
    check_migrated,
    check_still_migrated,
    is_made,
    make_tables,
    run_migrations,
)
from asif_lance.database.open_ingests import (
    PLAN_FILE,
    ROWS_PREFIX,
    close_ingest,
    drop_open_ingests,
    ingest_folder,
    list_fragment_files,
    list_open_ingests,
    put_if_absent,
)
from asif_lance.database.overtaken import undo_overtaken
from asif_lance.database.pair_rows import ROWS_PER_FRAGMENT, fragment_rows
from asif_lance.database.readability import check_readable
from asif_lance.database.registry import (
    CACHES,
    DISTANCES,
    LABEL_SETS,
    PROMPT_VECTORS,
    TABLES,
    list_erasers,
)
from asif_lance.database.schemas import CAPTIONS
from asif_lance.database.tables import (
    GRACE,
    Result,
    append_fragments,
    append_rows,
    find_table,
    local_path,
    open_own_pairs,
    open_table,
    read_table,
    resolve_uri,
    retry_read,
    storage_errors,
    table_uri,
    upsert_rows,
    write_rows_apart,
)
from asif_lance.database.tags import set_tag
from asif_lance.database.transactions import read_transaction
from asif_lance.database.vector_cache import (
    drop_gone_vectors,
    drop_stale_vectors,
    fetch_vectors,
)
from asif_lance.database.versions import Ledger, version_record
from asif_lance.records import LATEST

# fmt: off
__all__ = [
    "BYTES_KEPT", "CACHES", "CAPTIONS", "DISTANCES", "GRACE", "LABEL_SETS", "LATEST", "PLAN_FILE",
    "PROMPT_VECTORS", "ROWS_PER_FRAGMENT", "ROWS_PREFIX", "TABLES", "AttachedState", "Attachment",
    "Changes", "CheckReport", "CheckedSurface", "Damage", "Diff", "FoundPairs", "FragmentKey",
    "HashTable", "KnownPairs", "Ledger", "Result", "RowFilter", "WriteLock", "append_fragments",
    "append_rows", "check", "check_conditions", "check_epoch", "check_file", "check_lease",
    "check_manifest", "check_migrated", "check_naming_tables", "check_opened", "check_pin",
    "check_readable", "check_still_migrated", "clean_up", "close_ingest", "commit", "committing",
    "content_files", "count_changes", "count_reclaimable", "data_files", "describe_indices",
    "diff_states", "drop_caches", "drop_gone_vectors", "drop_old_caches", "drop_open_ingests",
    "drop_stale_vectors", "fetch_vectors", "files_exist", "find_attachment", "find_changes",
    "find_table", "finish_deletes", "fragment_rows", "hash_ids", "ingest_folder", "is_draft",
    "is_made", "join_fragments", "join_tiny_fragments", "keep_digests", "last_check",
    "list_erasers", "list_fragment_files", "list_open_ingests", "live_rows_key", "load_cache",
    "local_path", "make_tables", "name_files", "one_line", "open_own_pairs", "open_table",
    "purge_rows", "put_if_absent", "read_epoch", "read_pins", "read_table", "read_transaction",
    "rebuild_indices", "record_digests", "resolve_uri", "retry_read", "rows_by_id",
    "run_migrations", "save_cache", "set_tag", "storage_errors", "table_uri", "undo_overtaken",
    "update_config", "upsert_rows", "vector_width", "version_record", "write_attachment",
    "write_functions", "write_pins", "write_rows_apart",
]
# fmt: on
