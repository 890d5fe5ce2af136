"""Messages of etcd's API, generated: see regenerate.py."""
