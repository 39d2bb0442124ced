-- Segments as of 1998-07-01T00:00:00Z, in bigquery: TRUE, FALSE, or NULL for unknown
--   students: Recipe: students
--   big_spenders: Recipe: big spenders
--   funnel: Recipe: funnel
WITH known_features AS (
  /* what is known of each entity; NaN and what is past its ttl is missing */
  SELECT
    `entity`,
    `user:email`,
    LOWER(TRANSLATE(`user:email`, 'Σİ', 'σi')) AS `user:email (lower case)`
  FROM features
), past_events AS (
  /* what has happened by now, each event once */
  SELECT
    `entity`,
    `event`,
    `at`,
    `event_id`,
    CASE
      WHEN IS_NAN(CAST(`purchase:amount` AS FLOAT64))
      THEN NULL
      ELSE CAST(`purchase:amount` AS FLOAT64)
    END AS `purchase:amount`,
    `purchase:gift`,
    `view:sku`,
    `cart:sku`,
    `purchase:sku`
  FROM (
    SELECT
      *,
      ROW_NUMBER() OVER (PARTITION BY `entity`, `event_id` ORDER BY `seq`) AS delivery
    FROM events
  ) AS deliveries
  WHERE
    delivery = 1
    AND `event` IN ('purchase', 'view', 'cart')
    AND `at` <= 899251200000000 /* 1998-07-01T00:00:00Z */
), purchase_events AS (
  SELECT
    `entity`,
    `at`,
    `event_id`,
    `purchase:amount`,
    `purchase:gift`,
    `purchase:sku`,
    `purchase:gift` = FALSE AS matches_1 /* purchase where gift equals false */
  FROM past_events
  WHERE
    `event` = 'purchase'
), view_events AS (
  SELECT
    `entity`,
    `at`,
    `event_id`,
    `view:sku`
  FROM past_events
  WHERE
    `event` = 'view'
), cart_events AS (
  SELECT
    `entity`,
    `at`,
    `event_id`,
    `cart:sku`
  FROM past_events
  WHERE
    `event` = 'cart'
), purchase_totals AS (
  SELECT
    `entity`,
    CASE
      WHEN COUNT(counted_1) = 0
      THEN 0.0e0
      WHEN MAX(ABS(counted_1)) < 1073741824.0e0
      AND COALESCE(MIN(NULLIF(ABS(counted_1), 0.0e0)), 1073741824.0e0) >= 1.1920928955078125e-07
      THEN CAST(SUM(
        CAST(CASE
          WHEN ABS(counted_1) < 1073741824.0e0
          THEN CAST(FLOOR(counted_1 * 4294967296.0e0) AS INT64)
        END AS BIGNUMERIC)
      ) * 17592186044416 + SUM(
        CAST(CASE
          WHEN ABS(counted_1) < 1073741824.0e0
          THEN CAST((
            counted_1 * 4294967296.0e0 - FLOOR(counted_1 * 4294967296.0e0)
          ) * 17592186044416.0e0 AS INT64)
        END AS BIGNUMERIC)
      ) AS FLOAT64) * 1.3234889800848443e-23
      WHEN MAX(counted_1) = CAST('Infinity' AS FLOAT64)
      AND MIN(counted_1) = CAST('-Infinity' AS FLOAT64)
      THEN CAST(NULL AS FLOAT64)
      WHEN MAX(counted_1) = CAST('Infinity' AS FLOAT64)
      THEN CAST('Infinity' AS FLOAT64)
      WHEN MIN(counted_1) = CAST('-Infinity' AS FLOAT64)
      THEN CAST('-Infinity' AS FLOAT64)
      ELSE SUM(counted_1)
    END AS sum_1 /* sum amount of purchase where gift equals false in 30d */
  FROM (
    SELECT
      *,
      CASE
        WHEN matches_1 AND `at` > 896659200000000 /* 1998-06-01T00:00:00Z */
        THEN `purchase:amount`
      END AS counted_1
    FROM purchase_events
  ) AS counted_purchase_events
  GROUP BY
    `entity`
), sequence_1_start AS (
  /* did view */
  SELECT DISTINCT
    `entity`,
    `at`,
    `view:sku` AS key_1,
    0 AS run
  FROM view_events
  WHERE
    `view:sku` IS NOT NULL AND `at` > 896659200000000 /* 1998-06-01T00:00:00Z */
), sequence_1_step_2 AS (
  /* did cart within 1h */
  SELECT DISTINCT
    sequence_1_start.`entity`,
    next_event.`at`,
    sequence_1_start.key_1,
    CASE
      WHEN next_event.`at` = sequence_1_start.`at`
      THEN sequence_1_start.run
      ELSE 1
    END AS run
  FROM sequence_1_start
  JOIN cart_events AS next_event
    ON next_event.`entity` = sequence_1_start.`entity`
    AND next_event.`at` >= sequence_1_start.`at`
    AND next_event.`at` <= sequence_1_start.`at` + 3600000000
    AND next_event.`cart:sku` = sequence_1_start.key_1
), sequence_1_step_4 AS (
  /* did purchase within 1d */
  SELECT DISTINCT
    sequence_1_step_2.`entity`,
    next_event.`at`,
    sequence_1_step_2.key_1,
    CASE
      WHEN next_event.`at` = sequence_1_step_2.`at`
      THEN sequence_1_step_2.run
      ELSE 2
    END AS run
  FROM sequence_1_step_2
  JOIN purchase_events AS next_event
    ON next_event.`entity` = sequence_1_step_2.`entity`
    AND next_event.`at` >= sequence_1_step_2.`at`
    AND next_event.`at` <= sequence_1_step_2.`at` + 86400000000
    AND next_event.`purchase:sku` = sequence_1_step_2.key_1
  WHERE
    NOT EXISTS(
      SELECT
        1
      FROM view_events AS forbidden
      WHERE
        forbidden.`entity` = sequence_1_step_2.`entity`
        AND forbidden.`at` > sequence_1_step_2.`at`
        AND forbidden.`at` < next_event.`at`
        AND forbidden.`view:sku` = sequence_1_step_2.key_1
    )
    AND (
      next_event.`at` = sequence_1_step_2.`at`
      OR (
        sequence_1_step_2.run = 0
        OR NOT EXISTS(
          SELECT
            1
          FROM view_events AS forbidden
          WHERE
            forbidden.`entity` = sequence_1_step_2.`entity`
            AND forbidden.`at` = sequence_1_step_2.`at`
            AND forbidden.`view:sku` = sequence_1_step_2.key_1
        )
      )
    )
), sequence_1_done AS (
  SELECT DISTINCT
    sequence_1_step_4.`entity`
  FROM sequence_1_step_4
  WHERE
    sequence_1_step_4.run = 0
    OR NOT EXISTS(
      SELECT
        1
      FROM view_events AS forbidden
      WHERE
        forbidden.`entity` = sequence_1_step_4.`entity`
        AND forbidden.`at` = sequence_1_step_4.`at`
        AND forbidden.`view:sku` = sequence_1_step_4.key_1
    )
), operands AS (
  SELECT
    known_features.*,
    CASE WHEN purchase_totals.`entity` IS NULL THEN 0.0e0 ELSE purchase_totals.sum_1 END AS sum_1,
    sequence_1_done.`entity` IS NOT NULL AS sequence_1
  FROM known_features
  LEFT JOIN purchase_totals
    ON purchase_totals.`entity` = known_features.`entity`
  LEFT JOIN sequence_1_done
    ON sequence_1_done.`entity` = known_features.`entity`
)
SELECT
  `entity`,
  ENDS_WITH(`user:email (lower case)`, '.edu')
  OR REGEXP_CONTAINS(`user:email`, '^s\\d+@.*\\bcampus\\.example$') AS `students`,
  sum_1 >= 200.0e0 AS `big_spenders`,
  sequence_1 AS `funnel`
FROM operands;
