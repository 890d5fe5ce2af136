"""Where data goes and who says so: ids, schemes, cluster map, hashing, codec, metadata port."""
