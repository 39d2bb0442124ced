-- Segments as of 1998-07-01T00:00:00Z, in duckdb: TRUE, FALSE, or NULL for unknown
--   mobile: Recipe: mobile
WITH known_features AS (
  /* what is known of each entity; NaN and what is past its ttl is missing */
  SELECT
    "entity"
  FROM features
)
SELECT
  "entity",
  FALSE AS "mobile"
FROM known_features;
