"""Key services: what wraps the data keys of objects."""
