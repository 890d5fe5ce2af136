"""The metadata port with etcd's semantics, and its implementations."""
