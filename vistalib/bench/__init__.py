"""How fast it is: operator, models, loader, against the machine's limits and what others compute, as JSON with provenance."""

from vistalib.bench.beside import BesideBench, beside_table
from vistalib.bench.data import DataBench, DataSettings
from vistalib.bench.model import ModelBench, ModelSettings
from vistalib.bench.op import OperatorBench
from vistalib.bench.settings import OperatorSettings, operator_settings
from vistalib.bench.table import data_table, model_table, table
from vistalib.bench.workload import Cost, Workload, stage_workloads

__all__ = [
    "BesideBench",
    "Cost",
    "DataBench",
    "DataSettings",
    "ModelBench",
    "ModelSettings",
    "OperatorBench",
    "OperatorSettings",
    "Workload",
    "beside_table",
    "data_table",
    "model_table",
    "operator_settings",
    "stage_workloads",
    "table",
]
