"""A provider for OpenFeature's Python SDK that answers in the same process: segments are flags, and so are decisions.

It needs the extra ``openfeature``. From other processes and languages, ask ``segments serve`` with OpenFeature's own
OFREP providers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from rules_engine.clock import format_instant, to_micros
from rules_engine.errors import DataError, MissingExtraError, SegmentsError, UnknownNameError
from rules_engine.rules.decisions.choosing import ChoiceReason
from rules_engine.sdk import SegmentClient

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


_UNDECIDED = "more events of this entity came than the online store keeps"

_Details = TypeVar("_Details")


class SegmentsProvider(AbstractProvider):
    """Answers whether the entity ``targeting_key`` is in a segment, and what a decision gives it.

    The other context is that of conditions.

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
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """Tell whether an entity is in a segment, or give the value of a decision of booleans.

        ``changes_at`` and the definitions' version are metadata.

        Raises
        ------
        OpenFeatureError
            if it cannot be told; the SDK then gives the caller's default.
        """
        if flag_key in self._client.decisions:
            return self._decided(flag_key, default_value, evaluation_context, (bool,))
        return self._answer(lambda entity, context: self._membership(flag_key, entity, context), evaluation_context)

    def _membership(self, segment: str, entity: str, context: Mapping[str, Any]) -> FlagResolutionDetails[bool]:
        membership = self._client.lookup(entity, context=context, segments=[segment])
        if membership.error is not None or segment in membership.undecided:
            raise GeneralError(str(membership.error or _UNDECIDED))
        is_inside = segment in membership.segments
        return FlagResolutionDetails(
            value=is_inside,
            reason=Reason.TARGETING_MATCH,
            variant="in" if is_inside else "out",
            flag_metadata=self._metadata(membership.changes_at),
        )

    def _decided(
        self,
        decision: str,
        default_value: Any,
        evaluation_context: EvaluationContext | None,
        types: tuple[type, ...],
    ) -> FlagResolutionDetails[Any]:
        """Give the value of a decision; the caller's default where it is null."""

        def decide(entity: str, context: Mapping[str, Any]) -> FlagResolutionDetails[Any]:
            if decision not in self._client.decisions and decision in self._client.program.segments:
                raise TypeMismatchError(f"the segment `{decision}` is true or false: ask for a boolean")
            assignment = self._client.decide(entity, decision, context=context)
            if assignment.error is not None or assignment.is_undecided:
                raise GeneralError(str(assignment.error or _UNDECIDED))
            value = assignment.value
            if value is not None and type(value) not in types:
                kind = self._client.decisions[decision].type
                raise TypeMismatchError(f"values of the decision `{decision}` are of the type {kind}")
            by_bucket = assignment.choice.reason in (ChoiceReason.SPLIT, ChoiceReason.EXPERIMENT)
            return FlagResolutionDetails(
                value=default_value if value is None else value,
                reason=Reason.SPLIT if by_bucket else Reason.TARGETING_MATCH,
                variant=assignment.variant,
                flag_metadata={**self._metadata(assignment.changes_at), "because": assignment.reason()},
            )

        return self._answer(decide, evaluation_context)

    def _answer(
        self, ask: Callable[[str, Mapping[str, Any]], _Details], evaluation_context: EvaluationContext | None
    ) -> _Details:
        """Return what a question is answered with; errors become those of OpenFeature."""
        if evaluation_context is None or not evaluation_context.targeting_key:
            raise TargetingKeyMissingError("the targeting key is the key of the entity that is asked about")
        try:
            return ask(evaluation_context.targeting_key, evaluation_context.attributes)
        except UnknownNameError as error:
            raise FlagNotFoundError(_message(error)) from error
        except DataError as error:
            raise InvalidContextError(_message(error)) from error
        except SegmentsError as error:
            raise GeneralError(_message(error)) from error

    def _metadata(self, changes_at: datetime | None) -> dict[str, str]:
        until = {} if changes_at is None else {"changes_at": format_instant(to_micros(changes_at))}
        return {"definitions_version": self._client.plan.definitions_version, **until}

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """Give the value of a decision of strings. See :meth:`resolve_boolean_details`."""
        return self._decided(flag_key, default_value, evaluation_context, (str,))

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """Give the value of a decision of numbers, if it is whole. See :meth:`resolve_boolean_details`."""
        return self._decided(flag_key, default_value, evaluation_context, (int,))

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """Give the value of a decision of numbers. See :meth:`resolve_boolean_details`."""
        return self._decided(flag_key, default_value, evaluation_context, (int, float))

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Any]:
        """Give the value of a decision of objects or lists. See :meth:`resolve_boolean_details`."""
        return self._decided(flag_key, default_value, evaluation_context, (dict, list))

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


def _message(error: SegmentsError) -> str:
    return f"{error}; {error.hint}" if error.hint else str(error)
