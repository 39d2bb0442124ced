-- Segments as of 1998-07-01T00:00:00Z, in duckdb: TRUE, FALSE, or NULL for unknown
--   likely_buyers: Recipe: likely buyers
WITH known_features AS (
  /* what is known of each entity; NaN and what is past its ttl is missing */
  SELECT
    "entity",
    CASE
      WHEN "model:__updated_at" < 896659200000000 /* 1998-06-01T00:00:00Z */
      THEN NULL
      ELSE NULLIF(CAST("model:score" AS DOUBLE), CAST('NaN' AS DOUBLE))
    END AS "model:score"
  FROM features
)
SELECT
  "entity",
  "model:score" > 0.8e0 AS "likely_buyers"
FROM known_features;
