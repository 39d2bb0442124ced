"""From the CDNOW purchase file to offline features: read and validate, history, monthly snapshots, Parquet."""
