"""The embedded store of a project, if it has one."""

from __future__ import annotations

import yaml

from rules_engine.errors import ProjectError
from rules_engine.features.feast.plan_views import EMBEDDED_STORE
from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore


def embedded_store(project: Project) -> EmbeddedStore:
    """Return the embedded store of a project.

    Raises
    ------
    ProjectError
        if its `feature_store.yaml` names another store, or cannot be read.
    """
    try:
        content = yaml.safe_load(project.feature_store_yaml.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise ProjectError(f"{project.feature_store_yaml} cannot be read: {error}") from error
    section = content.get("online_store") if isinstance(content, dict) else None
    name = section.get("type") if isinstance(section, dict) else section
    if name != EMBEDDED_STORE:
        raise ProjectError(
            f"the online store of {project.root} is not the embedded one, but `{name or 'sqlite'}`",
            hint=f"the embedded one is `type: {EMBEDDED_STORE}` under `online_store` in "
            "feature_repo/feature_store.yaml",
        )
    return EmbeddedStore(project.root)
