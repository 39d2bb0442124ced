-- Segments as of 1998-07-01T00:00:00Z, in duckdb: TRUE, FALSE, or NULL for unknown
--   active: Recipe: active
WITH known_features AS (
  /* what is known of each entity; NaN and what is past its ttl is missing */
  SELECT
    "entity"
  FROM features
), past_events AS (
  /* what has happened by now, each event once */
  SELECT
    "entity",
    "event",
    "at",
    "event_id"
  FROM (
    SELECT
      *,
      ROW_NUMBER() OVER (PARTITION BY "entity", "event_id" ORDER BY "seq") AS delivery
    FROM events
  ) AS deliveries
  WHERE
    delivery = 1
    AND "event" = 'view'
    AND "at" <= 899251200000000 /* 1998-07-01T00:00:00Z */
), view_events AS (
  SELECT
    "entity",
    "at",
    "event_id"
  FROM past_events
  WHERE
    "event" = 'view'
), view_totals AS (
  SELECT
    "entity",
    COUNT(CASE WHEN "at" > 898646400000000 /* 1998-06-24T00:00:00Z */ THEN 1 END) AS count_1 /* count view in 7d */
  FROM view_events
  GROUP BY
    "entity"
), operands AS (
  SELECT
    known_features.*,
    CASE WHEN view_totals."entity" IS NULL THEN 0 ELSE view_totals.count_1 END AS count_1
  FROM known_features
  LEFT JOIN view_totals
    ON view_totals."entity" = known_features."entity"
)
SELECT
  "entity",
  count_1 >= 3 AS "active"
FROM operands;
