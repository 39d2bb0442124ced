-- Segments as of 1998-07-01T00:00:00Z, in duckdb: TRUE, FALSE, or NULL for unknown
--   office_hours: Recipe: office hours
WITH known_features AS (
  /* what is known of each entity; NaN and what is past its ttl is missing */
  SELECT
    "entity"
  FROM features
)
SELECT
  "entity",
  FALSE AND TRUE AS "office_hours"
FROM known_features;
