//! Every bound of the system, named with its unit, with one line of why. Relations between bounds are checked when the
//! program is compiled, at the end of this file. What an operator may change is a field of [`Limits`]; the rest is fixed.

/// The bounds that an operator may change, as the shards and protocols see them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest MQTT packet, WebSocket message and HTTP body that is accepted.
    pub packet_bytes_max: usize,
    /// Bytes that may wait for one connection before it falls behind.
    pub outbox_bytes_max: usize,
    /// Subscriptions of one MQTT connection.
    pub subscriptions_max: usize,
    /// MQTT sessions that outlive their connections, of the whole server.
    pub sessions_max: usize,
    pub segments: SegmentSizes,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            packet_bytes_max: PACKET_BYTES_MAX,
            outbox_bytes_max: OUTBOX_BYTES_MAX,
            subscriptions_max: SUBSCRIPTIONS_PER_CONNECTION,
            sessions_max: SESSIONS_MAX,
            segments: SegmentSizes::default(),
        }
    }
}

/// How large segments are. Only the simulator asks for others than the default.
#[derive(Clone, Copy, Debug)]
pub struct SegmentSizes {
    /// First segment after start: small, because it is zero-filled before the server is ready.
    pub first: usize,
    /// Later segments are a part of the log ([`SEGMENT_SHARE`]), between the first and this.
    pub max: usize,
    /// Logs up to this size are read whole at start; of larger ones the indexes, and the data afterwards, segment by
    /// segment.
    pub read_at_start: usize,
}

impl Default for SegmentSizes {
    fn default() -> Self {
        SegmentSizes { first: SEGMENT_BYTES_FIRST, max: SEGMENT_BYTES_MAX, read_at_start: READ_AT_START_BYTES }
    }
}

impl Limits {
    /// Large enough for the packets that are accepted.
    pub fn segment_sizes(&self) -> SegmentSizes {
        let least = 4 * self.packet_bytes_max;
        SegmentSizes { first: self.segments.first.max(least), max: self.segments.max.max(least), ..self.segments }
    }
}

/// Default for [`Limits::packet_bytes_max`]: documents are records, not files.
pub const PACKET_BYTES_MAX: usize = 1 << 20;
/// CONNECT packet: memory that a client is given before it has said who it is.
pub const CONNECT_BYTES_MAX: usize = 128 << 10;
/// The highest value an operator may give [`Limits::packet_bytes_max`]: a record must fit a segment several times.
pub const PACKET_BYTES_CEILING: usize = 16 << 20;
/// Default for [`Limits::outbox_bytes_max`]: a third of a second of stall at 100,000 small frames a second.
pub const OUTBOX_BYTES_MAX: usize = 4 << 20;
/// Snapshots, collections and further requests pause while more than this waits for their connection: a storm of
/// reconnecting clients must not fill every outbox.
pub const OUTBOX_STALL_BYTES: usize = 256 << 10;
/// Room beyond the outbox bound for the packet that says why a connection is closed.
pub const OUTBOX_RESERVE_BYTES: usize = 1 << 10;
/// Frames of at least this size are shared by reference between outboxes; smaller ones are cheaper copied
/// (one contiguous send instead of a vector of fragments).
pub const FRAME_SHARE_BYTES_MIN: usize = 4 << 10;
/// A run of events is given to its subscribers when it is this long, if not sooner.
pub const RUN_BYTES_MAX: usize = 16 << 10;
/// Buffers that a shard keeps for reuse by outboxes; an idle connection holds none.
pub const OUTBOX_POOL_BUFFERS: usize = 4096;
/// A buffer that grew beyond this is given back to the allocator instead of the pool.
pub const OUTBOX_POOL_BUFFER_BYTES_MAX: usize = 64 << 10;
/// What a buffer that is new to the pool can hold before it grows.
pub const OUTBOX_POOL_BUFFER_BYTES: usize = 2 << 10;

/// Shards of one server: interest is a 64-bit set of shards.
pub const SHARDS_MAX: usize = 64;
/// Tables of one data directory, dropped ones included: table numbers are 16 bits in the log.
pub const TABLES_MAX: usize = 4096;
/// Encoded length of a key (compat §2.4).
pub const KEY_BYTES_MAX: usize = 1978;
/// MQTT topic name or filter, and the path of a URL after decoding.
pub const TOPIC_BYTES_MAX: usize = 2 << 10;
/// Levels of a topic or filter: bounds the walk through the filter tree.
pub const TOPIC_LEVELS_MAX: usize = 32;
/// Nesting of a document: bounds the recursion of every transcoder.
pub const DOCUMENT_DEPTH_MAX: usize = 64;
/// Top-level properties of a record: names are compared one by one.
pub const PROPERTIES_MAX: usize = 1024;
/// Violations of the schema that one answer lists.
pub const VIOLATIONS_MAX: usize = 32;
/// Topic aliases that one connection is taught, whatever it offers.
pub const TOPIC_ALIASES_MAX: u16 = 256;
/// Default for [`Limits::subscriptions_max`]: each takes memory on every shard.
pub const SUBSCRIPTIONS_PER_CONNECTION: usize = 100;
/// The highest value an operator may give it: a delivery to a client with overlapping ones looks at all of them.
pub const SUBSCRIPTIONS_PER_CONNECTION_CEILING: usize = 10_000;
/// Default and highest value for [`Limits::sessions_max`]: some 300 bytes of memory and disk each.
pub const SESSIONS_MAX: usize = 1_000_000;
/// Default for connections of one client address, not counting this machine's own: more are closed at once.
pub const CONNECTIONS_PER_ADDRESS: usize = 256;
/// Default for connections that one shard accepts in a second: those beyond it wait in the kernel. At some 20 µs each a
/// flood takes a tenth of the shard's time.
pub const ACCEPTS_PER_SECOND: u32 = 5000;
/// Of them, how many may come at once: some milliseconds of work.
pub const ACCEPTS_AT_ONCE: u32 = 64;
/// Connections that one listening socket accepts in one turn.
pub const ACCEPTS_PER_TURN: usize = 8;
/// Of its descriptors the process keeps one in this many for other things than connections: log segments, backups.
pub const DESCRIPTORS_KEPT_SHARE: u64 = 4;
/// It keeps no more than this.
pub const DESCRIPTORS_KEPT_MAX: u64 = 1024;
/// How long accepting pauses where none are left for connections.
pub const DESCRIPTORS_RETRY_US: u64 = 100_000;
/// QoS 1 and 2 messages sent to one connection and not yet acknowledged, whatever receive maximum it asked for.
pub const INFLIGHT_MAX: usize = 1024;

/// Slots of a data lane between two shards: 256 KiB a pair, enough for a turn's worth of events.
pub const RING_DATA_SLOTS: usize = 4096;
/// Slots of a control lane between two shards.
pub const RING_CONTROL_SLOTS: usize = 512;
/// Messages that one turn takes from one lane, so that a hot peer starves nobody.
pub const RING_MESSAGES_PER_TURN: usize = 1024;
/// Weight of the commands that one shard's connections may have waiting for an answer; beyond it they are not read
/// from. A command weighs 1, and 1 more for each KiB that it carries.
pub const COMMANDS_OUTSTANDING_MAX: usize = 16 << 10;
/// Weight of the messages (as above) that may wait for room in a lane before this shard stops applying writes.
pub const LANE_BACKLOG_MAX: usize = 16 << 10;

/// Bytes of one chunk of a scan: what an owner copies in one go for a snapshot or a collection.
pub const SCAN_CHUNK_BYTES: usize = 64 << 10;
/// Records of one chunk of a scan.
pub const SCAN_CHUNK_RECORDS: usize = 512;
/// Records that a query looks at for one chunk, wanted or not: about a millisecond.
pub const SCAN_LOOKED_AT: usize = 2048;
/// Chunks of queries that a shard reads in one turn, for whomever: the others wait for the next.
pub const QUERY_CHUNKS_PER_TURN: usize = 8;
/// Records that are put into the indexes in one turn after a start.
pub const INDEXED_PER_TURN: usize = 512;

/// Body of one batch: bounds the time of one write and flush.
pub const BATCH_BYTES_MAX: usize = 2 << 20;
/// Bytes appended but not yet flushed before writes wait: beyond it commit times grow without bound.
pub const UNSYNCED_BYTES_MAX: usize = 8 << 20;
/// A segment that holds a header: what a start makes do with on a full disk.
pub const SEGMENT_BYTES_LEAST: usize = 4 << 10;
/// Default for [`SegmentSizes::first`].
pub const SEGMENT_BYTES_FIRST: usize = 4 << 20;
/// Default for [`SegmentSizes::max`].
pub const SEGMENT_BYTES_MAX: usize = 64 << 20;
/// A new segment is at most this part of the log: what is preallocated must not dwarf what is stored.
pub const SEGMENT_SHARE: usize = 16;
/// Makes another salt of one: an odd number with no pattern.
pub const SALT_FACTOR: u64 = 6_364_136_223_846_793_005;
/// Time between two attempts to make a segment while the disk is full.
pub const SEGMENT_RETRY_US: u64 = 1_000_000;
/// Time between two refreshes of the mark file: damage to what was flushed since cannot be told from a torn tail.
pub const MARK_INTERVAL_US: u64 = 1_000_000;

/// History that is kept where a table does not say otherwise: three days (compat §1.3).
pub const RETENTION_US: u64 = 3 * 24 * 3600 * 1_000_000;
/// The delete of a record that has not been written again is kept for this long at least, whatever the retention:
/// readers that come back must hear of it.
pub const TOMBSTONE_RETENTION_US: u64 = 24 * 3600 * 1_000_000;
/// A segment is rewritten when one part in this many of it can be dropped: a quarter of garbage, less than the half
/// that space amplification of 1.5 allows.
pub const COMPACTION_GARBAGE_SHARE: u64 = 4;
/// So many small neighbours are rewritten as one though nothing can be dropped: each restart begins a segment.
pub const COMPACTION_SMALL_SEGMENTS: usize = 8;
/// A segment is small if so many of its kind fit the largest one.
pub const COMPACTION_SMALL_SHARE: u64 = 32;
/// Time between two looks for something to rewrite.
pub const COMPACTION_INTERVAL_US: u64 = 1_000_000;
/// A shard that sleeps wakes for such a look after this.
pub const COMPACTION_IDLE_US: u64 = 30_000_000;
/// Records that one turn looks up for a compaction: some ten microseconds.
pub const COMPACTION_RECORDS_PER_TURN: usize = 32;
/// Bytes that a rewritten segment is written in. A commit that comes behind such a piece waits for it: few large ones
/// touch fewer commits than many small ones.
pub const REWRITE_BYTES: usize = 1 << 20;
/// Writing them may keep the disk busy for one part in this many of the time.
pub const WRITE_BEHIND_SHARE: u32 = 40;
/// Records that one turn reads again from the log, for clients that are behind.
pub const REPLAY_RECORDS_PER_TURN: usize = 8192;
/// Time between two messages in which a shard tells its peers how far it has come, though none of them has asked.
pub const REACHED_INTERVAL_US: u64 = 1_000_000;
/// Messages that one member of a shared subscription holds unacknowledged: more would wait behind a slow one while
/// others are idle.
pub const SHARED_OUTSTANDING_MAX: usize = 64;
/// Time between two copies of what a shard has counted.
pub const TALLY_INTERVAL_US: u64 = 1_000_000;
/// Default for the time between two updates of the figures below `$SYS`, in seconds: mosquitto's.
pub const SYS_INTERVAL_S: u64 = 10;
/// Sessions that one turn looks at after a start, and wills that it sends.
pub const SESSIONS_PER_TURN: usize = 64;
/// Records that one turn removes because they have expired.
pub const EXPIRED_PER_TURN: usize = 256;
/// Default for [`SegmentSizes::read_at_start`]: some tens of milliseconds.
pub const READ_AT_START_BYTES: usize = 64 << 20;
/// Time between two segments that are read to find rot.
pub const SCRUB_INTERVAL_US: u64 = 2_000_000;

const _: () = assert!(OUTBOX_BYTES_MAX >= 2 * PACKET_BYTES_MAX, "an outbox holds at least one largest frame");
const _: () = assert!(SEGMENT_BYTES_FIRST >= BATCH_BYTES_MAX + PACKET_BYTES_MAX, "a batch fits the smallest segment");
const _: () = assert!(UNSYNCED_BYTES_MAX >= 2 * BATCH_BYTES_MAX, "one batch fills while another is flushed");
const _: () = assert!(RING_DATA_SLOTS.is_power_of_two() && RING_CONTROL_SLOTS.is_power_of_two());
const _: () = assert!(KEY_BYTES_MAX <= TOPIC_BYTES_MAX && KEY_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(SEGMENT_BYTES_MAX >= 2 * PACKET_BYTES_CEILING, "a largest record fits a full-size segment");
