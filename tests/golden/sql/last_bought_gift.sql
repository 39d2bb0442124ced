-- Segments as of 1998-07-01T00:00:00Z, in duckdb: TRUE, FALSE, or NULL for unknown
--   last_bought_gift: Recipe: last bought gift
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
    "purchase:gift"
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
    "event_id",
    "purchase:gift"
  FROM past_events
  WHERE
    "event" = 'purchase'
), last_purchase_1 AS (
  /* last gift of purchase in 30d */
  SELECT
    "entity",
    "purchase:gift" AS last_1
  FROM (
    SELECT
      "entity",
      "purchase:gift",
      ROW_NUMBER() OVER (PARTITION BY "entity" ORDER BY "at" DESC, "event_id" DESC) AS position
    FROM purchase_events
    WHERE
      "at" > 896659200000000 /* 1998-06-01T00:00:00Z */
  ) AS ranked
  WHERE
    position = 1
), operands AS (
  SELECT
    known_features.*,
    last_purchase_1.last_1
  FROM known_features
  LEFT JOIN last_purchase_1
    ON last_purchase_1."entity" = known_features."entity"
)
SELECT
  "entity",
  last_1 = TRUE AS "last_bought_gift"
FROM operands;
