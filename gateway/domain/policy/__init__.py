"""Access policies: documents read, checked and judged. Pure rules, no I/O."""
