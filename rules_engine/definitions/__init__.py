"""YAML text to data with source positions, and the documents that a project's files hold."""
