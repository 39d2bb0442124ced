"""Features in Feast: the catalog, the read plan, the online and offline stores, and the embedded server."""
