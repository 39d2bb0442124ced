-- Segments as of 1998-07-01T00:00:00Z, in duckdb: TRUE, FALSE, or NULL for unknown
--   long_viewers: Recipe: long viewers
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
    "view:seconds"
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
    "view:seconds"
  FROM past_events
  WHERE
    "event" = 'view'
), view_totals AS (
  SELECT
    "entity",
    CAST(CAST(SUM(
      CASE WHEN "at" > 899164800000000 /* 1998-06-30T00:00:00Z */ THEN "view:seconds" END
    ) AS TEXT) AS DOUBLE) / CAST(NULLIF(
      COUNT(
        CASE WHEN "at" > 899164800000000 /* 1998-06-30T00:00:00Z */ THEN "view:seconds" END
      ),
      0
    ) AS DOUBLE) AS avg_1 /* avg seconds of view in 1d */
  FROM view_events
  GROUP BY
    "entity"
), operands AS (
  SELECT
    known_features.*,
    view_totals.avg_1
  FROM known_features
  LEFT JOIN view_totals
    ON view_totals."entity" = known_features."entity"
)
SELECT
  "entity",
  avg_1 > 60.0e0 AS "long_viewers"
FROM operands;
