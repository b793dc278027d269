//! RocksDB's settings: of the database, and of column families by what they are used for.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, DBCompressionType, DataBlockIndexType, InfoLogger,
    LogLevel, Options,
};

use super::Pools;
use crate::{engine::EngineError, table::Profile};

/// Files that may be open at once: far below the usual limit of 1024, since connections need theirs.
const OPEN_FILES: i32 = 512;

/// What a merge reads at once from each of its files.
const READAHEAD: usize = 256 << 10;

/// How much of a file is looked at before its compression dictionary is made, and how much of that is learnt from.
const SAMPLE: usize = 4 << 20;
const TRAINING: i32 = 100 * (16 << 10);

/// Replaying this much of the log takes about a second.
const WAL_BYTES: u64 = 128 << 20;

/// Settings of the database as a whole.
pub(crate) fn database(pools: &Pools) -> Result<Options, EngineError> {
    // Two that the bindings have no names for. Without the first, every start writes a file for every table that was
    // written to since the last flush. With the default of the second, the log reserves all that a memtable may hold,
    // tens of megabytes for an empty database, and commits are no faster for it.
    let mut options = Options::get_options_from_string(
        &mut Options::default(),
        "avoid_flush_during_recovery=true;allow_fallocate=false",
    )
    .map_err(super::failure)?;
    options.set_write_buffer_manager(&pools.memtables);
    options.set_max_open_files(OPEN_FILES);
    options.set_max_total_wal_size(WAL_BYTES);
    // One flush and two merges at a time: each takes some megabytes, and a small merge must not wait for a large one.
    options.set_max_background_jobs(3);
    options.set_compaction_readahead_size(READAHEAD);
    // Written in small steps, so that a large flush does not hold up the sync of a commit.
    options.set_bytes_per_sync(1 << 20);
    // The default reserves 4 MiB for a file of some kilobytes.
    options.set_manifest_preallocation_size(64 << 10);
    options.set_max_manifest_file_size(16 << 20);
    // Periodic statistics would be a thread and rows for nobody: our metrics say what we need.
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    // No LOG files: what matters comes out with everything else the server says. (And a LOG would be written into a
    // database before it turns out to be in use.)
    options.set_info_logger(InfoLogger::new_callback_logger(
        LogLevel::Warn,
        |level, message| match level {
            LogLevel::Error | LogLevel::Fatal => {
                tracing::error!(engine = message.trim_end(), "the engine reports");
            }
            // The headers are a thousand lines of settings. They come whatever the level, and call themselves infos.
            LogLevel::Header | LogLevel::Debug | LogLevel::Info => {
                tracing::trace!(engine = message.trim_end(), "the engine reports");
            }
            LogLevel::Warn => {
                tracing::info!(engine = message.trim_end(), "the engine reports");
            }
        },
    ));
    Ok(options)
}

/// Settings of a column family.
///
/// No prefix extractors: keys of one table begin with fields of different lengths, and scans are bounded on both sides.
pub(crate) fn column_family(profile: Profile, pools: &Pools) -> Result<Options, EngineError> {
    // Another one without a name: by default a whole file is held in memory, uncompressed, until its dictionary is made.
    let mut options = Options::get_options_from_string(
        &mut Options::default(),
        format!("bottommost_compression_opts={{max_dict_buffer_bytes={SAMPLE}}}"),
    )
    .map_err(super::failure)?;
    let mut blocks = BlockBasedOptions::default();

    blocks.set_block_cache(&pools.cache);
    // Filters and indexes are part of the budget, cut in pieces so that only the used ones stay in memory.
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_partition_filters(true);
    blocks.set_metadata_block_size(4 << 10);

    // One table alone may fill half of what all memtables may take; most need far less. Which table has to be flushed when all
    // take too much together, the engine decides; writers do not wait for it.
    options.set_write_buffer_size((pools.unflushed / 2).max(1 << 20));
    options.set_max_write_buffer_number(4);
    // A level into which files are merged has to be some times larger than what comes into it at once, and no more, or each
    // time much is written again that has not changed.
    options.set_max_bytes_for_level_base((4 * pools.unflushed as u64).clamp(16 << 20, 256 << 20));
    options.set_target_file_size_base(16 << 20);
    // Each of many memtables grows in steps of this; the default (1 MiB) would fill the budget with air.
    options.set_arena_block_size(64 << 10);
    options.set_level_compaction_dynamic_level_bytes(true);
    // Cheap where data moves often, dense at the bottom, where nine tenths of it lie.
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);

    match profile {
        // A ribbon filter answers "not there" without a read and is a third smaller than a bloom filter; the newest
        // level has bloom, which is cheaper to build. Small blocks with a hash index: one row is wanted, not its
        // neighbours.
        Profile::Point => {
            blocks.set_hybrid_ribbon_filter(10.0, 1);
            blocks.set_block_size(4 << 10);
            blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        }
        // Larger blocks compress better and are read in a row anyway; lookups mostly find their row, so the bottom
        // level, where it will be, goes without filter.
        Profile::Scan => {
            blocks.set_hybrid_ribbon_filter(10.0, 1);
            blocks.set_block_size(16 << 10);
            options.set_optimize_filters_for_hits(true);
        }
        // Deleted rows slow down every scan over them: compact as soon as half of 64 rows in a row are tombstones.
        // Nothing lives long enough to be worth zstd.
        Profile::Churn => {
            blocks.set_bloom_filter(10.0, false);
            blocks.set_block_size(8 << 10);
            options.set_bottommost_compression_type(DBCompressionType::Lz4);
            options.add_compact_on_deletion_collector_factory(64, 32, 0.5);
        }
        // Values of a kilobyte compress well together, better still with a dictionary; those of many kilobytes lie in
        // files of their own, which compaction does not copy.
        Profile::Blob => {
            blocks.set_hybrid_ribbon_filter(10.0, 1);
            blocks.set_block_size(16 << 10);
            options.set_bottommost_compression_options(-14, 32_767, 0, 16 << 10, true);
            options.set_bottommost_zstd_max_train_bytes(TRAINING, true);
            options.set_enable_blob_files(true);
            options.set_min_blob_size(16 << 10);
            options.set_blob_compression_type(DBCompressionType::Zstd);
            options.set_enable_blob_gc(true);
            options.set_blob_cache(&pools.cache);
        }
        // Overwritten rows mostly die in the memtable, and what is flushed fits in a few small files.
        Profile::Counter => {
            blocks.set_bloom_filter(10.0, false);
            blocks.set_block_size(4 << 10);
            options.set_target_file_size_base(8 << 20);
            options.set_max_bytes_for_level_base(32 << 20);
        }
    }
    options.set_block_based_table_factory(&blocks);
    Ok(options)
}
