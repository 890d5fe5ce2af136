"""How many partitions a new cluster may have."""

import pytest
from typer.testing import CliRunner

from ops.admin_cli import admin
from placement.cluster_map import PARTITION_COUNTS, PARTITIONS_DEFAULT, PARTITIONS_MAX


def test_the_counts_that_operators_may_choose() -> None:
    assert PARTITION_COUNTS == (4096, 8192, 16384, 32768, 65536)
    assert PARTITIONS_DEFAULT in PARTITION_COUNTS
    assert max(PARTITION_COUNTS) == PARTITIONS_MAX


@pytest.mark.parametrize("count", ["0", "5000", "131072"])
def test_another_count_is_refused_before_anything_is_made(count: str, tmp_path: object) -> None:
    key = f"{tmp_path}/cluster.key"
    assert CliRunner().invoke(admin, ["key", key]).exit_code == 0
    where = ["--etcd", "http://127.0.0.1:1", "--cluster-key-file", key]
    done = CliRunner().invoke(admin, ["init", "--partitions", count, *where])
    assert done.exit_code != 0
    assert "--partitions is one of 4096," in done.output
