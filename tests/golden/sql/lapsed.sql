-- Segments as of 1998-07-01T00:00:00Z, in duckdb: TRUE, FALSE, or NULL for unknown
--   lapsed: Recipe: lapsed
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
    AND "event" = 'purchase'
    AND "at" <= 899251200000000 /* 1998-07-01T00:00:00Z */
), purchase_events AS (
  SELECT
    "entity",
    "at",
    "event_id"
  FROM past_events
  WHERE
    "event" = 'purchase'
), purchase_totals AS (
  SELECT
    "entity",
    COUNT(*) AS count_1, /* count purchase ever */
    COUNT(CASE WHEN "at" > 891475200000000 /* 1998-04-02T00:00:00Z */ THEN 1 END) AS count_2 /* count purchase in 90d */
  FROM purchase_events
  GROUP BY
    "entity"
), operands AS (
  SELECT
    known_features.*,
    CASE WHEN purchase_totals."entity" IS NULL THEN 0 ELSE purchase_totals.count_1 END AS count_1,
    CASE WHEN purchase_totals."entity" IS NULL THEN 0 ELSE purchase_totals.count_2 END AS count_2
  FROM known_features
  LEFT JOIN purchase_totals
    ON purchase_totals."entity" = known_features."entity"
)
SELECT
  "entity",
  count_1 >= 1 AND count_2 = 0 AS "lapsed"
FROM operands;
