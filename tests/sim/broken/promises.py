"""The rules of the design, sentence by sentence: what is taken out to show that each is needed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Promise:
    """A sentence of the design, in short; the rules of the registry that take it out. Where there is
    none, or not for all of it, `otherwise` says why, or what holds it."""

    sentence: str
    rules: tuple[str, ...] = ()
    otherwise: str = ""


PROMISES = (
    # Reads check the bucket
    Promise(
        "GET, HEAD and LIST read the bucket's key with the object",
        ("stale_buckets_are_read", "stale_buckets_are_listed", "commits_ignore_the_bucket"),
    ),
    Promise("nothing absent is cached", ("absent_buckets_are_remembered",)),
    Promise("how stale an identity may be is bounded", ("identities_do_not_age",)),
    # Groups, references, garbage
    Promise("a shard's header names its group and owner record", ("shards_name_no_owner",)),
    Promise(
        "a further record that uses a group puts its reference in its own transaction",
        ("copies_leave_no_references",),
    ),
    Promise("and compares the source's revision", ("copies_ignore_their_source",)),
    Promise(
        "a transaction that ends a record queues its groups",
        ("nothing_is_queued", "unused_parts_are_not_queued"),
    ),
    Promise(
        "but not those that its successor uses",
        otherwise="redundant: whoever reclaims claims first, and a claim sees that the owner record"
        " uses the group; queueing it costs a look and loses nothing",
    ),
    Promise(
        "deleting a group, by garbage or by sweep, first claims it",
        ("garbage_is_not_claimed", "the_sweep_does_not_claim"),
    ),
    Promise(
        "the claim compares the owner record and that there is no reference",
        ("claims_compare_nothing", "claims_ignore_references"),
    ),
    Promise(
        "a group's first commit compares that nobody claimed it",
        ("first_commits_ignore_claims", "parts_ignore_claims"),
    ),
    # Unknown outcomes
    Promise(
        "only the identical transaction is retried",
        ("lost_answers_count_as_refusals", "refusals_after_lost_answers_are_believed"),
    ),
    Promise(
        "both sendings may arrive: what was carried out and ended is not carried out again",
        (
            "copies_may_come_twice",
            "copies_ignore_the_window",
            "what_ended_may_begin_again",
        ),
    ),
    Promise(
        "garbage that bears one's own commit id means success",
        ("ended_commits_are_not_recognised", "groups_that_moved_on_are_not_recognised"),
    ),
    Promise(
        "garbage entries outlive the longest retry",
        (
            "garbage_is_forgotten_at_once",
            "claims_are_forgotten_in_open_windows",
            "commits_ignore_their_window",
            "closed_windows_tell_all",
        ),
    ),
    Promise(
        "after an unknown outcome a gateway deletes no shard",
        (
            "shards_are_discarded_after_unknown_outcomes",
            "refusals_are_told_though_a_sending_is_on_its_way",
        ),
    ),
    # Epochs
    Promise(
        "commits compare the map that they were placed under",
        ("commits_ignore_the_epoch", "plans_outlive_their_map"),
    ),
    Promise(
        "only when placement mattered; each epoch's map is a key of its own",
        otherwise="costs, not promises: a compare too many refuses what would be right",
    ),
    Promise(
        "what was placed under an older epoch is re-committed only where the order is the same",
        ("renewed_wherever_they_lie",),
    ),
    Promise(
        "nodes refuse puts of old epochs, and confirm new ones before a mover lists them",
        otherwise="not built so: movers list the metadata, fenced by the commits' compare"
        " (ops/decisions/0014-moves-by-inventory.md); see commits_ignore_the_epoch",
    ),
    Promise(
        "an epoch closes only when its moves are verified",
        ("epochs_closed_unverified", "delete_before_a_move_is_verified"),
    ),
    Promise("one planned move at a time", ("moves_do_not_wait_for_each_other",)),
    # Damage marks
    Promise(
        "a commit that left a drive out compares that its mark exists",
        ("commits_ignore_the_marks", "writes_leave_no_marks"),
    ),
    Promise(
        "the keeper removes marks before it takes inventory",
        ("marks_forgotten_after_the_inventory",),
    ),
    Promise(
        "the backlog of garbage is bounded; past the bound overwrites slow down",
        ("garbage_grows_without_bound",),
    ),
    # Uploads
    Promise(
        "UploadPart compares that the upload is open",
        ("parts_ignore_the_upload", "completions_ignore_the_parts"),
    ),
    Promise("the same token gets the same answer", ("completions_are_not_kept",)),
    Promise("a failed precondition reopens", ("refused_completions_stay",)),
    Promise("a crash resumes by token", ("cut_off_completions_block",)),
    Promise(
        "the keeper reclaims parts that were not used",
        ("unused_parts_are_not_queued", "copies_keep_whole_uploads"),
    ),
    # Drives
    Promise("a drive proves that it is still itself", ("drives_are_not_proven",)),
    Promise("only folders of --drives are adopted empty", ("empty_folders_are_adopted",)),
    Promise("a failed flush is never retried", ("failed_flushes_are_retried",)),
    Promise("recovery skips past bad records", ("recovery_stops_at_bad_records",)),
    Promise(
        "checksums cover segment and offset",
        otherwise="bytes of another life of a place: tests/unit/test_segments.py",
    ),
    # Leaving
    Promise(
        "nobody is put out while more than one failure domain is missing", ("put_out_in_twos",)
    ),
    Promise(
        "nor while etcd is unwell; grace counts only while it is healthy",
        ("absences_are_counted_unseen",),
    ),
    Promise("ages come from one process's monotonic clock", ("ages_by_the_wall_clock",)),
    Promise("versions are ordered by sequence", ("versions_are_ordered_by_the_clock",)),
    Promise("garbage waits longer than a GET", ("garbage_does_not_wait",)),
    Promise("a GET that misses shards reads its record again", ("records_are_not_read_again",)),
    # Restore and rebuild
    Promise(
        "drives store the cluster's id and incarnation; restoring raises the incarnation",
        otherwise="held without a simulation: tests/unit/test_incarnations.py",
    ),
    Promise(
        "garbage and sweep stay off until the operator confirms",
        ("reclaiming_does_not_wait_for_an_operator",),
    ),
    Promise(
        "a rebuild is the last snapshot; later shards are reported apart",
        otherwise="that the drives tell the metadata is asked at the end of every seed"
        " (tests/sim/truth.py, untold); later shards: tests/functional/test_rebuild.py",
    ),
    Promise("the sweep knows snapshots", ("snapshots_are_swept",)),
    # SQLite, sockets
    Promise(
        "one connection writes, no read transaction spans an await, old revisions are compacted",
        otherwise="the simulation's metadata is in memory: tests/contract and"
        " tests/unit/test_metastore_sqlite.py",
    ),
    Promise(
        "the supervisor holds the listening sockets",
        otherwise="the simulation has no sockets: tests/unit/test_listening_sockets.py",
    ),
    # Invariants
    Promise(
        "shards are on stable storage before the commit, all or at least k + 1",
        ("commit_before_the_quorum", "skip_one_flush", "too_few_shards_suffice"),
    ),
    Promise("of two racing conditional writes one wins", ("commits_ignore_what_they_replace",)),
    Promise(
        "a delete took effect when there was nothing",
        ("deletes_are_settled_by_their_successors",),
    ),
    Promise("bytes are checked end to end", ("answers_unchecked",)),
    # What was stored on too few drives
    Promise(
        "what was stored on too few drives gets its full width back",
        ("nothing_ever_fits_again", "copies_stay_narrow"),
    ),
    # Quotas (ops/decisions/0024-quotas.md)
    Promise(
        "a quota is exceeded by what others wrote since the keeper last published, and no more",
        ("quotas_are_not_checked", "own_writes_do_not_count", "usage_is_not_published"),
    ),
)
