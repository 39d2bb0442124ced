-- Segments as of 1998-07-01T00:00:00Z, in duckdb: TRUE, FALSE, or NULL for unknown
--   students: Recipe: students
WITH known_features AS (
  /* what is known of each entity; NaN and what is past its ttl is missing */
  SELECT
    "entity",
    "user:email",
    LOWER("user:email") AS "user:email (lower case)"
  FROM features
)
SELECT
  "entity",
  ENDS_WITH("user:email (lower case)", '.edu')
  OR REGEXP_MATCHES("user:email", '^s\d+@.*\bcampus\.example$') AS "students"
FROM known_features;
