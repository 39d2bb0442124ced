-- Segments as of 1998-07-01T00:00:00Z, in duckdb: TRUE, FALSE, or NULL for unknown
--   abandoned_cart: Recipe: abandoned cart
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
    AND "event" IN ('cart', 'purchase')
    AND "at" <= 899251200000000 /* 1998-07-01T00:00:00Z */
), cart_events AS (
  SELECT
    "entity",
    "at",
    "event_id"
  FROM past_events
  WHERE
    "event" = 'cart'
), purchase_events AS (
  SELECT
    "entity",
    "at",
    "event_id"
  FROM past_events
  WHERE
    "event" = 'purchase'
), sequence_1_start AS (
  /* did cart */
  SELECT DISTINCT
    "entity",
    "at"
  FROM (
    SELECT
      "entity",
      "at",
      MAX("at") OVER (PARTITION BY "entity") AS latest
    FROM cart_events
  ) AS candidates
  WHERE
    "at" = latest AND "at" > 899164800000000 /* 1998-06-30T00:00:00Z */
), sequence_1_done AS (
  /* did not purchase within 30m */
  SELECT DISTINCT
    sequence_1_start."entity"
  FROM sequence_1_start
  WHERE
    sequence_1_start."at" <= 899249400000000 /* 1998-06-30T23:30:00Z */
    AND NOT EXISTS(
      SELECT
        1
      FROM purchase_events AS forbidden
      WHERE
        forbidden."entity" = sequence_1_start."entity"
        AND forbidden."at" >= sequence_1_start."at"
        AND forbidden."at" <= sequence_1_start."at" + 1800000000
    )
), operands AS (
  SELECT
    known_features.*,
    sequence_1_done."entity" IS NOT NULL AS sequence_1
  FROM known_features
  LEFT JOIN sequence_1_done
    ON sequence_1_done."entity" = known_features."entity"
)
SELECT
  "entity",
  sequence_1 AS "abandoned_cart"
FROM operands;
