"""A provider for OpenFeature's Python SDK that answers in the same process: segments are boolean flags.

It needs the extra ``openfeature``. From other processes and languages, ask ``segments serve`` with OpenFeature's own
OFREP providers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from rules_engine.clock import format_instant, to_micros
from rules_engine.errors import DataError, MissingExtraError, SegmentsError, UnknownNameError
from rules_engine.sdk import Membership, SegmentClient

try:
    from openfeature.evaluation_context import EvaluationContext
    from openfeature.exception import (
        FlagNotFoundError,
        GeneralError,
        InvalidContextError,
        TargetingKeyMissingError,
        TypeMismatchError,
    )
    from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType, Reason
    from openfeature.provider import AbstractProvider, Metadata
    from openfeature.track import TrackingEventDetails
except ModuleNotFoundError as error:
    raise MissingExtraError("openfeature-sdk", "openfeature", "the OpenFeature provider") from error


class SegmentsProvider(AbstractProvider):
    """Answers whether the entity ``targeting_key`` is in a segment. The other context is that of conditions.

    ``track`` of the OpenFeature client reports an event.

    Parameters
    ----------
    client
        answers lookups; it is closed with the provider. Make it with ``on_error="raise"``, which is its default: a
        store that cannot be read is then an error of the evaluation, and the caller's default its value.

    Examples
    --------
    ::

        from openfeature import api
        from openfeature.evaluation_context import EvaluationContext

        api.set_provider(SegmentsProvider(SegmentClient.from_repo(".")))
        api.get_client().get_boolean_value("vip", False, EvaluationContext("42"))
    """

    def __init__(self, client: SegmentClient) -> None:
        super().__init__()
        self._client = client

    def get_metadata(self) -> Metadata:
        """Return the provider's name."""
        return Metadata(name="feast-segments")

    def shutdown(self) -> None:
        """Close the client."""
        self._client.close()

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """Tell whether an entity is in a segment, with ``changes_at`` and the definitions' version as metadata.

        Raises
        ------
        OpenFeatureError
            if it cannot be told; the SDK then gives the caller's default.
        """
        if evaluation_context is None or not evaluation_context.targeting_key:
            raise TargetingKeyMissingError("the targeting key is the key of the entity that is asked about")
        try:
            membership = self._client.lookup(
                evaluation_context.targeting_key, context=evaluation_context.attributes, segments=[flag_key]
            )
        except UnknownNameError as error:
            raise FlagNotFoundError(_message(error)) from error
        except DataError as error:
            raise InvalidContextError(_message(error)) from error
        except SegmentsError as error:
            raise GeneralError(_message(error)) from error
        if membership.error is not None or flag_key in membership.undecided:
            reason = membership.error or "more events of this entity came than the online store keeps"
            raise GeneralError(str(reason))
        is_inside = flag_key in membership.segments
        return FlagResolutionDetails(
            value=is_inside,
            reason=Reason.TARGETING_MATCH,
            variant="in" if is_inside else "out",
            flag_metadata=self._metadata(membership),
        )

    def _metadata(self, membership: Membership) -> Mapping[str, str]:
        changes_at = membership.changes_at
        until = {} if changes_at is None else {"changes_at": format_instant(to_micros(changes_at))}
        return {"definitions_version": self._client.plan.definitions_version, **until}

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """Refuse: a segment is true or false."""
        _refuse(flag_key)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """Refuse: a segment is true or false."""
        _refuse(flag_key)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """Refuse: a segment is true or false."""
        _refuse(flag_key)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Any]:
        """Refuse: a segment is true or false."""
        _refuse(flag_key)

    def track(
        self,
        tracking_event_name: str,
        evaluation_context: EvaluationContext | None = None,
        tracking_event_details: TrackingEventDetails | None = None,
    ) -> None:
        """Report an event of the entity ``targeting_key``: the attributes of its details are its properties.

        Raises
        ------
        DataError
            if it is not as events.yaml declares it.
        StoreError
            if the store cannot be reached.
        """
        if evaluation_context is None or not evaluation_context.targeting_key:
            raise TargetingKeyMissingError("the targeting key is the key of the entity that did something")
        properties: dict[str, Any] = {}
        if tracking_event_details is not None:
            properties |= tracking_event_details.attributes
            if tracking_event_details.value is not None:
                properties["value"] = tracking_event_details.value
        self._client.track(evaluation_context.targeting_key, tracking_event_name, properties)


def _refuse(flag_key: str) -> NoReturn:
    raise TypeMismatchError(f"the segment `{flag_key}` is true or false: ask for a boolean")


def _message(error: SegmentsError) -> str:
    return f"{error}; {error.hint}" if error.hint else str(error)
