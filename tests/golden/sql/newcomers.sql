-- Segments as of 1998-07-01T00:00:00Z, in duckdb: TRUE, FALSE, or NULL for unknown
--   newcomers: Recipe: newcomers
WITH known_features AS (
  /* what is known of each entity; NaN and what is past its ttl is missing */
  SELECT
    "entity",
    "user:signup",
    "user:tags"
  FROM features
)
SELECT
  "entity",
  (
    "user:signup" > 896659200000000 /* 1998-06-01T00:00:00Z */
    AND "user:signup" <= 899251200000000 /* 1998-07-01T00:00:00Z */
  )
  AND NOT (
    CASE
      WHEN "user:tags" IS NOT NULL
      THEN COALESCE(LIST_CONTAINS("user:tags", 'staff'), FALSE)
    END
    OR CASE
      WHEN "user:tags" IS NOT NULL
      THEN COALESCE(LIST_CONTAINS("user:tags", 'test'), FALSE)
    END
  ) AS "newcomers"
FROM known_features;
