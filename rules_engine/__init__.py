"""A feature store with declarative segment rules: segments in YAML, one meaning at request time, in batch and on the stream."""
