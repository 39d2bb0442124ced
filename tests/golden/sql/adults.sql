-- Segments as of 1998-07-01T00:00:00Z, in duckdb: TRUE, FALSE, or NULL for unknown
--   adults: Recipe: adults
WITH known_features AS (
  /* what is known of each entity; NaN and what is past its ttl is missing */
  SELECT
    "entity",
    "user:age"
  FROM features
)
SELECT
  "entity",
  "user:age" >= 18 AS "adults"
FROM known_features;
