"""The same rules, run as SQL by Spark."""
