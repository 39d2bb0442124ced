"""From files to what is applied: tests, apply, materialize."""
