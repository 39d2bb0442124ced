"""The feature views that commands fill: labels of clusters and scores of models.

Their rows are made by `segments cluster attach` and `segments model score`, from features that are read together with
them. So where they are kept in a Parquet file, that file has to be there before the first row: it is made here, empty.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rules_engine.definitions.source import read_documents, to_plain
from rules_engine.errors import ProjectError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.offline.parquet import local_path

#: By file of the Feast repository, the key that names the view which its documents fill.
FILLED_BY = {"clusters.yaml": "clusters", "models.yaml": "model"}


def filled_views(feature_repo: Path) -> set[str]:
    """Return the names of the views that clusters.yaml and models.yaml fill, as far as they can be read."""
    views: set[str] = set()
    for file, key in FILLED_BY.items():
        path = feature_repo / file
        if path.is_file():
            documents, _ = read_documents(path.read_text(encoding="utf-8", errors="replace"), file)
            plain = [to_plain(document) for document in documents]
            views.update(str(content[key]) for content in plain if isinstance(content, dict) and key in content)
    return views


def make_missing_files(repo: FeastRepo) -> list[Path]:
    """Make an empty file for each view of labels or scores whose Parquet file does not exist yet.

    Raises
    ------
    ProjectError
        if one cannot be written.
    """
    names = filled_views(repo.project.feature_repo)
    files = []
    for view in repo.contents.feature_views:
        path = local_path(repo.project.feature_repo, view.batch_source) if view.name in names else None
        if path is not None and not path.exists():
            _write_empty(view, path)
            files.append(path)
    return files


def _write_empty(view: Any, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from feast.types import from_feast_to_pyarrow_type

    source, instant = view.batch_source, pa.timestamp("us", tz="UTC")
    columns = {column.name: from_feast_to_pyarrow_type(column.dtype) for column in view.entity_columns}
    columns |= {source.timestamp_field: instant}
    columns |= {source.created_timestamp_column: instant} if source.created_timestamp_column else {}
    columns |= {field.name: from_feast_to_pyarrow_type(field.dtype) for field in view.features}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.schema(columns).empty_table(), path)
    except OSError as error:
        raise ProjectError(f"cannot write {path}: {error.strerror}", hint="is the folder writable?") from error
