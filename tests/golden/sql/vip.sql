-- Segments as of 1998-07-01T00:00:00Z, in duckdb: TRUE, FALSE, or NULL for unknown
--   vip: Recipe: vip
WITH known_features AS (
  /* what is known of each entity; NaN and what is past its ttl is missing */
  SELECT
    "entity",
    "user:age"
  FROM features
), past_events AS (
  /* what has happened by now, each event once */
  SELECT
    "entity",
    "event",
    "at",
    "event_id",
    NULLIF(CAST("purchase:amount" AS DOUBLE), CAST('NaN' AS DOUBLE)) AS "purchase:amount",
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
    "purchase:amount",
    "purchase:gift",
    "purchase:gift" = FALSE AS matches_1 /* purchase where gift equals false */
  FROM past_events
  WHERE
    "event" = 'purchase'
), purchase_totals AS (
  SELECT
    "entity",
    CASE
      WHEN COUNT(counted_1) = 0
      THEN 0.0e0
      WHEN MAX(ABS(counted_1)) < 1073741824.0e0
      AND COALESCE(MIN(NULLIF(ABS(counted_1), 0.0e0)), 1073741824.0e0) >= 1.1920928955078125e-07
      THEN CAST(CAST(SUM(
        CASE
          WHEN ABS(counted_1) < 1073741824.0e0
          THEN CAST(counted_1 * 7.555786372591432e+22 AS INT128)
        END
      ) AS TEXT) AS DOUBLE) * 1.3234889800848443e-23
      WHEN MAX(counted_1) = CAST('Infinity' AS DOUBLE)
      AND MIN(counted_1) = CAST('-Infinity' AS DOUBLE)
      THEN CAST(NULL AS DOUBLE)
      WHEN MAX(counted_1) = CAST('Infinity' AS DOUBLE)
      THEN CAST('Infinity' AS DOUBLE)
      WHEN MIN(counted_1) = CAST('-Infinity' AS DOUBLE)
      THEN CAST('-Infinity' AS DOUBLE)
      WHEN ISFINITE(FSUM(counted_1))
      THEN FSUM(counted_1)
      ELSE FSUM(counted_1 * 5.421010862427522e-20) * 1.8446744073709552e+19
    END AS sum_1, /* sum amount of purchase where gift equals false in 30d */
    COUNT(*) AS count_1, /* count purchase ever */
    COUNT(CASE WHEN "at" > 891475200000000 /* 1998-04-02T00:00:00Z */ THEN 1 END) AS count_2 /* count purchase in 90d */
  FROM (
    SELECT
      *,
      CASE
        WHEN matches_1 AND "at" > 896659200000000 /* 1998-06-01T00:00:00Z */
        THEN "purchase:amount"
      END AS counted_1
    FROM purchase_events
  ) AS counted_purchase_events
  GROUP BY
    "entity"
), operands AS (
  SELECT
    known_features.*,
    CASE WHEN purchase_totals."entity" IS NULL THEN 0.0e0 ELSE purchase_totals.sum_1 END AS sum_1,
    CASE WHEN purchase_totals."entity" IS NULL THEN 0 ELSE purchase_totals.count_1 END AS count_1,
    CASE WHEN purchase_totals."entity" IS NULL THEN 0 ELSE purchase_totals.count_2 END AS count_2
  FROM known_features
  LEFT JOIN purchase_totals
    ON purchase_totals."entity" = known_features."entity"
), segments_1 AS (
  SELECT
    *,
    "user:age" >= 18 AS "adults",
    sum_1 >= 200.0e0 AS "big_spenders",
    count_1 >= 1 AND count_2 = 0 AS "lapsed"
  FROM operands
)
SELECT
  "entity",
  "adults" AND "big_spenders" AND NOT "lapsed" AS "vip"
FROM segments_1;
