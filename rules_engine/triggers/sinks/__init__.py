"""Where actions go: one module for each kind of sink."""
