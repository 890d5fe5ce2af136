"""Settings of all suites: property tests may be slow on a busy machine, that is no failure; and the
files that take longest come first."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ostraka", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("ostraka")

TESTS = Path(__file__).parent
LONGEST_FIRST = (
    "sim/test_broken_rules.py",
    "functional/test_cluster.py",
    "probe/test_changes.py",
    "functional/test_degraded.py",
    "probe/test_kill.py",
    "probe/test_sync.py",
    "probe/test_leader.py",
    "functional/test_migration.py",
    "functional/test_rebuild.py",
    "truth/test_truth.py",
    "functional/test_serve.py",
    "functional/test_full_disk.py",
    "truth/test_cluster_truth.py",
    "functional/test_aws_cli.py",
    "functional/test_hung_processes.py",
    "contract/test_etcd_faults.py",
    "sim/test_moving.py",
    "sim/test_cluster.py",
    "functional/test_cluster_tls.py",
    "functional/test_encryption.py",
    "functional/test_multipart.py",
    "functional/test_quotas.py",
    "functional/test_storage_classes.py",
    "functional/test_terraform.py",
    "functional/test_lifecycle.py",
    "contract/test_metastore.py",
    "sim/test_drive_crashes.py",
    "probe/test_metadata_size.py",
    "helm/test_dockerfile.py",
)
"""A file is one worker's: a long one that is begun last is waited for by all the others."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those files first, the rest in its order."""
    ranks = {TESTS / name: rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))
