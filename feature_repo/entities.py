"""Who the features are about."""

from feast import Entity, ValueType

user = Entity(
    name="user",
    join_keys=["user_id"],
    value_type=ValueType.STRING,
    description="A CDNOW customer, by the five digits of the purchase file, e.g. 00042",
)
