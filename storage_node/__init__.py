"""What a storage node is: drives, shard formats, and the protocol by which gateways reach them."""
