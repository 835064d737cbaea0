"""How fast it is: operator and whole models, against the machine's limits and what others compute, as JSON with provenance."""

from vistalib.bench.model import ModelBench, ModelSettings
from vistalib.bench.op import OperatorBench
from vistalib.bench.settings import OperatorSettings, operator_settings
from vistalib.bench.table import model_table, table
from vistalib.bench.workload import Cost, Workload, stage_workloads

__all__ = [
    "Cost",
    "ModelBench",
    "ModelSettings",
    "OperatorBench",
    "OperatorSettings",
    "Workload",
    "model_table",
    "operator_settings",
    "stage_workloads",
    "table",
]
