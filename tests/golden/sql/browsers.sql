-- Segments as of 1998-07-01T00:00:00Z, in duckdb: TRUE, FALSE, or NULL for unknown
--   browsers: Recipe: browsers
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
    "event_id",
    "view:sku"
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
    "event_id",
    "view:sku"
  FROM past_events
  WHERE
    "event" = 'view'
), view_totals AS (
  SELECT
    "entity",
    COUNT(
      DISTINCT CASE WHEN "at" > 899247600000000 /* 1998-06-30T23:00:00Z */ THEN "view:sku" END
    ) AS distinct_1 /* distinct sku of view in 1h */
  FROM view_events
  GROUP BY
    "entity"
), operands AS (
  SELECT
    known_features.*,
    CASE WHEN view_totals."entity" IS NULL THEN 0 ELSE view_totals.distinct_1 END AS distinct_1
  FROM known_features
  LEFT JOIN view_totals
    ON view_totals."entity" = known_features."entity"
)
SELECT
  "entity",
  distinct_1 >= 3 AS "browsers"
FROM operands;
