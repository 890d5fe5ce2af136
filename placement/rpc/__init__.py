"""A small framed, multiplexed request protocol between Ostraka's processes."""
