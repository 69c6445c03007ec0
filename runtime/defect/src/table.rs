//! The table of the zoo, in the order of its ids. `docs/bugs/` has a page for each.

macro_rules! zoo {
    ($($id:literal $name:ident $summary:literal;)*) => {
        /// A known bug that can be switched on, named as its page in `docs/bugs/` is.
        #[allow(non_camel_case_types)] // a switch is written as the zoo's table writes it
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Defect {
            $(#[doc = $summary] $name,)*
        }

        impl Defect {
            /// Every defect, in the order of the ids.
            pub const ALL: &[Defect] = &[$(Defect::$name,)*];

            /// The name of the switch, such as `retry_fsync`.
            pub const fn name(self) -> &'static str {
                match self { $(Defect::$name => stringify!($name),)* }
            }

            /// The number in the zoo, such as `Z48`.
            pub fn id(self) -> String {
                let number: u32 = match self { $(Defect::$name => $id,)* };
                format!("Z{number}")
            }

            /// What happens when it is switched on, in one line.
            pub const fn summary(self) -> &'static str {
                match self { $(Defect::$name => $summary,)* }
            }

            /// Finds a defect by its switch or its id.
            pub fn by_name(name: &str) -> Option<Defect> {
                Self::ALL.iter().copied().find(|defect| defect.name() == name || defect.id() == name)
            }
        }
    };
}

zoo! {
    1 truncate_to_hw "a follower has fetched m2, its high watermark lags; it restarts and truncates to the high watermark; the leader dies; the follower leads";
    2 ignore_leader_epoch "both replicas lose power, one loses m2, leads and writes m3 at the same offset; the other keeps m2";
    3 epoch_lookup_single_round "two quick failovers; the leader does not know the follower's epoch";
    4 cache_epoch_on_append_only "a new leader that has written nothing does not record its epoch";
    5 skip_truncation_if_same_leader "a follower misses an epoch in which the leader stayed the same";
    6 truncate_early_return "elections without writes; truncating at the log's end leaves the epoch cache dirty";
    7 hw_before_truncate "a former leader applies the new high watermark before it truncates";
    8 credit_diverging_fetch "a leader counts a fetch that diverges as replicated";
    9 no_owner_check "a late answer truncates a partition that the fetcher no longer follows";
    10 elect_last_isr_unclean "the ISR shrinks to one, that one loses its page cache, comes back and leads";
    11 isr_no_broker_epoch "an ISR extension is in flight, the follower dies and returns empty, the extension lands";
    12 isr_allow_fenced "a fenced broker is put back into the ISR";
    13 clear_clean_marker_late "crash while the logs load leaves the clean-shutdown marker";
    14 no_hw_bump_on_full_truncation "the log is truncated wholly, the high watermark stays behind the start; then it leads";
    15 no_fetch_epoch_check "a consumer crosses a truncation unseen";
    16 no_txn_verify "a delayed write lands after its transaction was aborted";
    17 no_epoch_bump_per_txn "an EndTxn is delayed past its retry, the next transaction has the same epoch";
    18 marker_strict_gt "a marker is written, the answer is lost; the retry is refused";
    19 double_bump "fencing and aborting raise the epoch twice near its maximum (needs a small maximum)";
    20 bump_on_failed_append "each repeat of a failed fencing append raises the epoch again";
    21 hw_double_read "the high watermark is read again after an await within one fetch";
    22 lso_off_by_one "last stable offset used as inclusive";
    23 drop_producer_state_on_failover "the leader dies after the append, the new one has no producer state";
    24 seq_not_reset_on_txn "append fine, answer lost, abort; the next transaction reuses the sequence";
    25 expire_ignores_markers "producer expiry ignores markers";
    26 clean_markers_by_key "compaction drops a marker before its data";
    27 clean_past_hw "the cleaner is not bounded by the high watermark";
    28 leo_after_txn_index "the transaction index append fails before the end offset moves";
    29 keep_state_on_reload "an unload is skipped, then the partition loads again";
    30 reload_on_isr_change "an ISR-only change reloads the transaction coordinator";
    31 load_until_leo "compaction leaves a gap at the end, loading waits for it";
    32 no_persist_static_rejoin "a static member's new id is not written, the coordinator moves";
    33 replace_static_only_when_stable "two joins with one instance id while a rebalance is prepared";
    34 no_new_member_timeout "a new member goes away before it has joined";
    35 expire_offsets_while_rebalancing "KAFKA-13636 (78a3789)";
    36 expire_staged_offsets "retention deletes an offset that an open transaction has staged";
    37 no_generation_in_owned "a returning member claims stale partitions";
    38 skip_generation_check "a zombie commits with an old generation";
    39 reconfigure_before_noop "a deposed leader's and a new leader's configuration do not overlap";
    40 campaign_with_unapplied_configuration "etcd 12133 (R); applies only if configurations take effect at commit, not at append";
    41 no_fsync_vote "the vote is in the page cache when power fails";
    42 resume_same_epoch "a leader restarts in its old epoch after losing its tail";
    43 commit_prior_term "KAFKA-12619 (d2c06c9); Raft figure 8";
    44 reuse_read_context "etcd 20418, etcd 7331";
    45 retention_past_snapshot "KAFKA-14238 (b166ac4)";
    46 no_check_quorum "a cut-off leader never resigns";
    47 snapshot_index_early "a snapshot names an index before the state of that index is in it";
    48 retry_fsync "fsync fails, the retry 'succeeds', the pages are marked clean";
    49 rename_without_fsync "KAFKA-15312 (e072706), the ALICE paper";
    50 corrupt_as_torn "FAST'18 protocol-aware recovery (R); Jepsen on NATS 2.12.1 (7549): a corrupt committed entry is taken for a torn tail and cut";
    51 no_fsync_checkpoint "the epoch checkpoint is not synced";
    52 assert_monotonic_wall_clock "wall time steps back";
    53 retention_trusts_record_time "records from the future";
    54 delete_orphans_from_stale_metadata "a node with a damaged snapshot leads and deletes data it does not know";
    55 isr_join_at_hw "a follower joins the ISR at the high watermark, before it has reached the start of the leader's epoch";
    56 dup_ack_before_commit "a repeated batch is answered from memory before the first one is committed";
    57 waiter_survives_epoch "leadership is lost and regained; a waiting produce is acknowledged by another record's offset";
    58 wiped_voter_votes "a voter returns with an empty folder and votes";
    59 range_repair_of_compacted "the damaged range of a compacted log is fetched alone; its tombstone is already cleaned on the peer";
    60 truncate_not_durable "a cut tail comes back after power loss with valid checksums";
    61 hw_below_min_isr "the high watermark moves while the ISR is smaller than m";
    62 hw_committed_isr_only "a removal counts before it is committed, or an addition is not counted while proposed";
    63 ack_before_segment_write "a round is acknowledged before the segment write succeeded; the disk is full";
    64 replay_without_deletions "deletions and truncations are not journalled";
    65 raise_level_without_voters "the feature level is raised though a voter that holds no partitions does not know it; KIP-919";
}
