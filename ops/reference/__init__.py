"""Reference pages made from the code: `python -m ops.reference` writes them to `ops/docs`."""
