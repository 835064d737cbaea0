"""How fast it is: the operator against the machine's limits and against how others compute it, as JSON with provenance."""

from vistalib.bench.op import OperatorBench
from vistalib.bench.settings import OperatorSettings, operator_settings
from vistalib.bench.table import table
from vistalib.bench.workload import Cost, Workload, stage_workloads

__all__ = ["Cost", "OperatorBench", "OperatorSettings", "Workload", "operator_settings", "stage_workloads", "table"]
