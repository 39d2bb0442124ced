"""What is known about a customer, point in time: a row as of T was computed from purchases at or before T.

A purchase is everything that a customer bought on one day, and its instant is the last second of that day (see
docs/adr/0003-demo-data-and-time.md).
"""

from datetime import timedelta

from entities import user
from feast import FeatureView, Field
from feast.types import Bool, Float64, Int64, String, UnixTimestamp
from sources import purchase_history_source, purchase_propensity_source, rfm_source, user_clusters_source

purchase_history = FeatureView(
    name="purchase_history",
    description="All purchases so far; a new row with every purchase. Facts that do not go out of date.",
    entities=[user],
    ttl=timedelta(0),  # Feast's way to say: none
    source=purchase_history_source,
    schema=[
        Field(name="frequency", dtype=Int64, description="Purchases: days on which the customer bought something"),
        Field(name="items", dtype=Int64, description="CDs bought"),
        Field(name="monetary_value", dtype=Float64, description="Dollars spent"),
        Field(name="mean_basket", dtype=Float64, description="Dollars per purchase"),
        Field(name="last_basket", dtype=Float64, description="Dollars of the latest purchase"),
        Field(
            name="typical_gap_days",
            dtype=Float64,
            description="Median number of days between consecutive purchases; missing with a single purchase",
        ),
        Field(name="first_purchase", dtype=UnixTimestamp, description="When the customer first bought"),
        Field(name="last_purchase", dtype=UnixTimestamp, description="When the customer last bought"),
    ],
)

rfm = FeatureView(
    name="rfm",
    description="Recency, frequency and money at the first instant of each month; the numbers that clustering reads.",
    entities=[user],
    ttl=timedelta(days=40),  # a snapshot of last month is good until the next one is late
    source=rfm_source,
    schema=[
        Field(name="recency_days", dtype=Int64, description="Whole days since the latest purchase"),
        Field(name="tenure_days", dtype=Int64, description="Whole days since the first purchase"),
        Field(name="frequency", dtype=Int64, description="Purchases so far"),
        Field(name="monetary_value", dtype=Float64, description="Dollars spent so far"),
        Field(name="mean_basket", dtype=Float64, description="Dollars per purchase"),
        Field(name="purchases_90d", dtype=Int64, description="Purchases in the 90 days before"),
        Field(name="spend_90d", dtype=Float64, description="Dollars spent in the 90 days before"),
    ],
)

user_clusters = FeatureView(
    name="user_clusters",
    description="The customer's cluster, from `segments cluster fit` and `segments cluster attach`.",
    entities=[user],
    ttl=timedelta(0),
    source=user_clusters_source,
    schema=[
        Field(name="label", dtype=String, description="The cluster's name"),
        Field(name="cluster", dtype=Int64, description="The cluster's number in its model"),
        Field(name="distance", dtype=Float64, description="Distance to the cluster's centre, in standard deviations"),
        Field(name="model_version", dtype=String, description="The model that gave the label"),
        Field(name="confidence", dtype=Float64, description="How much nearer this centre is than the next: 0 to 1"),
        Field(name="outlier", dtype=Bool, description="Whether the customer is unlike the cluster's others"),
    ],
)

purchase_propensity = FeatureView(
    name="purchase_propensity",
    description="How likely the customer buys within 90 days, from `segments model fit` and `segments model score`.",
    entities=[user],
    ttl=timedelta(days=40),  # a score of last month is good until the next one is late
    source=purchase_propensity_source,
    schema=[
        Field(name="score", dtype=Float64, description="Probability of a purchase within 90 days, from 0 to 1"),
        Field(name="percentile", dtype=Float64, description="Share of customers in the test with a lower score"),
        Field(name="model_version", dtype=String, description="The model that gave the score"),
    ],
)
