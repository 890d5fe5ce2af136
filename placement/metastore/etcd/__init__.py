"""The metadata port on etcd: `open_etcd(EtcdOptions(...))`. The only module that knows gRPC."""

from placement.metastore.etcd.options import EtcdOptions
from placement.metastore.etcd.store import EtcdMetastore, open_etcd

__all__ = ["EtcdMetastore", "EtcdOptions", "open_etcd"]
