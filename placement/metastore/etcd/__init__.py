"""The metadata port on etcd: `open_etcd(EtcdOptions(...))`. The only module that knows gRPC."""

from placement.metastore.etcd.options import EtcdOptions
from placement.metastore.etcd.store import EtcdMetastore, open_etcd
from placement.metastore.etcd.versions import forgets_when_killed

__all__ = ["EtcdMetastore", "EtcdOptions", "forgets_when_killed", "open_etcd"]
