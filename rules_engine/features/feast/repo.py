"""Open a project's Feast repository, read the features that its definitions declare, and apply the definitions.

This is the adapter between Feast's objects and ours. It imports Feast, so only commands that need Feast import it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rules_engine.diagnostics import listing
from rules_engine.errors import NotAppliedError, ProjectError, SegmentsError, UnsupportedError, pass_interrupt
from rules_engine.features.feast.objects import load_objects
from rules_engine.features.feast.plan_views import check_fields, connection_of, plan_view, ttl_micros
from rules_engine.features.feast.registry import RegistryChange, defined_specs, registry_specs, source_text
from rules_engine.features.feast_import import import_feast, quiet, setting
from rules_engine.folders import Project
from rules_engine.read_plan import Connection, PlanView, ReadPlan
from rules_engine.rules.catalog import Catalog, Feature
from rules_engine.rules.types import from_feast_name


@dataclass(frozen=True, slots=True)
class EntityKey:
    """Names the entity that features describe, and its one join key."""

    name: str
    join_key: str


_OUR_STORES = "rules_engine.features.online_store."
_OUR_ENGINE = "rules_engine.features.arrow_engine.ArrowEngine"


def _prefer_columns(config: Any) -> None:
    """Use our compute engine if the online store is ours and the project leaves the engine to Feast.

    Feast's default passes values through pandas, one by one: slower, and a whole number beside a null is rounded.
    """
    chosen = config.batch_engine_config
    name = chosen.get("type") if isinstance(chosen, dict) else chosen
    store = config.online_config
    kind = store.get("type") if isinstance(store, dict) else store
    if name == "local" and str(kind).startswith(_OUR_STORES):
        config.batch_engine_config = _OUR_ENGINE


class FeastRepo:
    """Holds an open Feast repository.

    Parameters
    ----------
    project
        the project whose ``feature_repo/`` this is.

    Attributes
    ----------
    store
        Feast's ``FeatureStore``. It is the only one that should exist in the process: two slow each other down.
    contents
        the definitions in the Python files, as Feast's ``RepoContents``, with what Feast infers filled in. They may
        differ from the registry until :meth:`apply`.

    Raises
    ------
    ProjectError
        if the configuration or the definitions cannot be used.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        feast = import_feast()
        try:
            with quiet():
                self.store: Any = feast.FeatureStore(repo_path=str(project.feature_repo))
        except (SegmentsError, PermissionError):
            raise
        except Exception as error:  # Feast raises many kinds, and its message names the setting
            pass_interrupt(error)
            raise ProjectError(
                f"{project.feature_store_yaml}: {error}", hint="see Feast's reference of feature_store.yaml"
            ) from error
        _prefer_columns(self.store.config)
        self.contents: Any = load_objects(project.feature_repo, self.store.project)
        self._infer()

    @property
    def name(self) -> str:
        """Return Feast's name of the project."""
        return str(self.store.project)

    def _infer(self) -> None:
        """Fill in columns that the definitions leave to Feast, without touching the registry."""
        from feast.inference import (
            update_data_sources_with_inferred_event_timestamp_col as infer_timestamps,
        )
        from feast.inference import (
            update_feature_views_with_inferred_features_and_entities as infer_features,
        )

        config = self.store.config
        views = [*self.contents.feature_views, *self.contents.stream_feature_views]
        try:
            with quiet():
                infer_timestamps([*self.contents.data_sources], config)
                infer_features(self.store.provider, views, self.contents.entities, config)
        except Exception as error:  # Feast raises many kinds
            pass_interrupt(error)
            raise ProjectError(
                f"Feast cannot infer the columns of a feature view: {error}",
                hint="do its source files exist? or give the view a `schema` and its source a `timestamp_field`",
            ) from error

    # --- what rules may read ---------------------------------------------------------------------------------------

    def entity(self) -> EntityKey:
        """Return the entity that segments are about: the one that all online feature views are keyed by.

        Raises
        ------
        ProjectError
            if there is no online feature view, or their entities are several.
        UnsupportedError
            if the entity has several join keys, or its key is no string.
        """
        views = list(self._online_views(self._desired()))
        if not views:
            raise ProjectError(
                f"{self.project.feature_repo} defines no feature view that is served online",
                hint="define a FeatureView with an entity and online=True",
            )
        keys = {tuple(view.entities) for view in views}
        if len(keys) > 1:
            names = listing({name for key in keys for name in key})
            raise ProjectError(
                f"the online feature views belong to several entities ({names}), and segments are about one",
                hint="keep views of other entities in a Feast project of their own, or set online=False on them",
            )
        names_of_one = next(iter(keys))
        columns = {column.name: str(column.dtype) for view in views for column in view.entity_columns}
        if len(columns) != 1 or len(names_of_one) != 1:
            raise UnsupportedError(
                f"entity `{', '.join(names_of_one)}` has the join keys {listing(columns)}; one is supported",
                hint="combine them into one string column",
            )
        join_key, key_type = next(iter(columns.items()))
        if key_type != "String":
            raise UnsupportedError(
                f"the join key `{join_key}` of entity `{names_of_one[0]}` is {key_type}, and entity keys are strings",
                hint="set value_type=ValueType.STRING on the entity, and write the column as strings",
            )
        return EntityKey(names_of_one[0], join_key)

    def catalog(self) -> Catalog:
        """Return the features that definitions may mention, with their types, from the files as they are now.

        Raises
        ------
        ProjectError, UnsupportedError
            as :meth:`entity` does.
        """
        self.entity()
        features = [
            Feature(view.name, field.name, from_feast_name(str(field.dtype)), str(field.dtype), field.description or "")
            for view in self._online_views(self._desired())
            for field in view.features
        ]
        ttl = {view.name: micros for view in self._online_views(self._desired()) if (micros := ttl_micros(view.ttl))}
        return Catalog({feature.key: feature for feature in features}, ttl)

    def _desired(self) -> list[Any]:
        return [*self.contents.feature_views, *self.contents.stream_feature_views]

    def registered_views(self) -> dict[str, Any]:
        """Return the feature views in Feast's registry that are keyed by an entity and served online, by name.

        Raises
        ------
        NotAppliedError
            as :meth:`check_registered` does.
        """
        with quiet():
            views = {str(view.name): view for view in self._online_views(self._registered())}
        self.check_registered(views.values())
        return views

    def registered_view(self, name: str) -> Any:
        """Return one feature view of Feast's registry.

        Raises
        ------
        NotAppliedError
            as :meth:`check_registered` does.
        """
        with quiet():
            view = self.store.get_feature_view(name)
        self.check_registered([view])
        return view

    def check_registered(self, views: Iterable[Any] | None = None) -> None:
        """Refuse views that Feast's registry has with another source than the files.

        Feast writes absolute paths into its registry, so that of a copied project names the files of the original.

        Parameters
        ----------
        views
            of the registry; None for all.

        Raises
        ------
        NotAppliedError
            if one differs.
        """
        desired = {str(view.name): view for view in self._desired()}
        with quiet():
            views = self._registered() if views is None else views
        for view in views:
            mine = desired.get(str(view.name))
            if mine is None or source_text(mine) != source_text(view):
                path = getattr(view.batch_source, "path", "") or str(view.batch_source.name)
                raise NotAppliedError(
                    f"feature_repo/ differs from what is applied: the registry reads `{view.name}` from {path}",
                    hint="run `segments apply`; after a project was copied or moved, too",
                )

    def _registered(self) -> list[Any]:
        registry = self.store.registry
        return [*registry.list_feature_views(self.name), *registry.list_stream_feature_views(self.name)]

    @staticmethod
    def _online_views(views: Iterable[Any]) -> Iterable[Any]:
        from feast.feature_view import DUMMY_ENTITY_NAME

        served = (view for view in views if view.online and view.enabled and list(view.entities) != [DUMMY_ENTITY_NAME])
        return sorted(served, key=lambda view: str(view.name))

    # --- applying --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Refuse definitions that could not be applied, before anything is applied.

        Raises
        ------
        ProjectError, UnsupportedError
            as :meth:`entity` does, or if two features share a field of the store.
        """
        self.entity()
        check_fields(self._plan_views(self._desired()))

    def pending(self) -> RegistryChange:
        """Find what :meth:`apply` would change in Feast's registry, without changing anything."""
        with quiet():
            before = registry_specs(self.store.registry, self.name)
        return RegistryChange.between(before, defined_specs(self.contents, self.name))

    def apply(self) -> RegistryChange:
        """Bring Feast's registry to the state of the files.

        Values of a view that was removed stay in the online store: Feast would delete them by a pattern that also
        fits other projects in the same database.
        """
        from feast.errors import FeastError
        from feast.repo_operations import extract_objects_for_apply_delete

        config = self.store.config.online_store
        try:
            with quiet(), setting(config, "full_scan_for_deletion", value=False):
                registry = self.store.registry
                before = registry_specs(registry, self.name)
                to_apply, to_delete, _, _ = extract_objects_for_apply_delete(self.name, registry, self.contents)
                self.store.apply(to_apply, objects_to_delete=to_delete, partial=False)
        except (FeastError, ValueError) as error:
            raise ProjectError(f"Feast refuses the definitions: {error}") from error
        return RegistryChange.between(before, defined_specs(self.contents, self.name))

    def read_plan(
        self, definitions: Mapping[str, Any], applied_at: int, now: int | None = None, *, of_files: bool = False
    ) -> ReadPlan:
        """Return the read plan for the registry's state and the given definitions.

        Parameters
        ----------
        of_files
            for the state that the registry will be in when the files are applied.

        Raises
        ------
        ProjectError
            if two features share a field of the store.
        """
        views = self._plan_views(self._desired() if of_files else self._registered())
        check_fields(views)
        key = self.entity()
        return ReadPlan(
            project=self.name,
            entity=key.name,
            join_key=key.join_key,
            key_version=self.store.config.entity_key_serialization_version,
            connection=self.connection(),
            views=views,
            definitions=definitions,
            applied_at=applied_at,
            now=now,
        )

    def plan_view(self, view: Any) -> PlanView:
        """Return how a feature view of the registry lies in the store."""
        return self._plan_views([view])[0]

    def _plan_views(self, views: Iterable[Any]) -> tuple[PlanView, ...]:
        versioned = self.store.config.registry.enable_online_feature_view_versioning
        return tuple(plan_view(view, versioned=versioned) for view in self._online_views(views))

    @property
    def writes_in_bulk(self) -> bool:
        """Tell whether the online store is one of ours, which take Arrow columns and keep a newer row from an older."""
        from rules_engine.features.writing.store import BulkStore

        return isinstance(self.store.provider.online_store, BulkStore)

    def connection(self) -> Connection:
        """Return how the online store is reached, as ``feature_store.yaml`` says it, variables unexpanded."""
        return connection_of(self.store.config.online_store, self.project.feature_store_yaml)
