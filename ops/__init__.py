"""How the store is run: command line, supervisor, keeper, admin port, benchmarks' front door."""
