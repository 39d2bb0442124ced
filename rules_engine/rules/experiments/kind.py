"""Describes the experiment document to the registry of kinds."""

from __future__ import annotations

from rules_engine.rules.document import DocumentKind
from rules_engine.rules.experiments.checks import find_overlaps
from rules_engine.rules.experiments.codec import decode_experiments, encode_experiments
from rules_engine.rules.experiments.parse import parse_experiment
from rules_engine.rules.experiments.schema import ENVELOPE, describe_parts

EXPERIMENT = DocumentKind(
    name="experiment",
    envelope=ENVELOPE,
    parse=parse_experiment,
    check=find_overlaps,
    features=lambda experiments: {each.covariate for each in experiments.values() if each.covariate is not None},
    schema=describe_parts,
    encode=encode_experiments,
    decode=decode_experiments,
    plan_parts={"experiments": "experiments"},
)
