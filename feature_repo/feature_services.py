"""The features that belong together for one use."""

from feast import FeatureService
from feature_views import purchase_history, purchase_propensity, rfm, user_clusters

user_profile = FeatureService(
    name="user_profile",
    description="Everything that segments read about a customer",
    features=[purchase_history, rfm, user_clusters, purchase_propensity],
)

clustering_v1 = FeatureService(
    name="clustering_v1",
    description="The numbers that clustering reads",
    features=[rfm],
)
