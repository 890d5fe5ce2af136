"""What the contract suites share: a real etcd, started once."""

from collections.abc import Iterator

import pytest

from tests.contract.etcd_process import EtcdCluster, etcd_binary


@pytest.fixture(scope="session")
def etcd_cluster() -> Iterator[EtcdCluster]:
    """One member, its keys whatever the last test left."""
    if etcd_binary() is None:
        pytest.skip("no etcd: install the test dependencies, or name one in TEST_ETCD")
    cluster = EtcdCluster()
    yield cluster
    cluster.close()
