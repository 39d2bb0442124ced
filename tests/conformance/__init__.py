"""The language as cases: what a condition means, and which definitions are refused."""
