-- Segments as of 1998-07-01T00:00:00Z, in duckdb: TRUE, FALSE, or NULL for unknown
--   nordics: Recipe: nordics
WITH known_features AS (
  /* what is known of each entity; NaN and what is past its ttl is missing */
  SELECT
    "entity",
    "user:country",
    "user:vip"
  FROM features
)
SELECT
  "entity",
  "user:country" IN ('NO', 'SE', 'DK') AND COALESCE("user:vip" = TRUE, TRUE) AS "nordics"
FROM known_features;
